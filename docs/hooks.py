"""Puts pages into the site that live elsewhere in the repository, and makes links between them work.

Pages keep the links that GitHub needs, relative to their place in the repository. On the site, a link to a page or a
file that the site has leads there. Any other link leads to the repository or, while that has no address, is plain
text.
"""

import posixpath
import re
from pathlib import Path
from typing import Optional

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
# where files of the repository lie on the site; the rest of docs/ keeps its place
ELSEWHERE = {
    'timm_alfa/tasks/cards/*.md': 'methods',
    'results/*.md': 'results',
    'results/benchmarks/*.md': 'results/benchmarks',
    'results/benchmarks/*.png': 'results/benchmarks',
    'results/figures/*.png': 'results/figures',
    'CONTRIBUTING.md': '.',
    'CHANGELOG.md': '.',
}
LINK = re.compile(r'(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)')
PICTURE = re.compile(r'<picture>\s*<source [^>]*srcset="([^"]+)">\s*<img alt="([^"]*)" src="([^"]+)">\s*</picture>')
FENCE = re.compile(r'^(```.*?^```)$', re.MULTILINE | re.DOTALL)


def site_path(path: str) -> Optional[str]:
    """The place of a file of the repository on the site; None if it is not there."""
    if path.startswith('docs/'):
        return path.removeprefix('docs/') if (ROOT / path).is_file() else None
    for pattern, folder in ELSEWHERE.items():
        if (ROOT / path) in ROOT.glob(pattern):
            return posixpath.normpath(posixpath.join(folder, posixpath.basename(path)))
    return None


def added_files() -> dict[str, Path]:
    """The files that the site takes from outside docs/, by their place on it."""
    found = [path for pattern in ELSEWHERE for path in sorted(ROOT.glob(pattern))]
    return {site_path(path.relative_to(ROOT).as_posix()): path for path in found}


def on_config(config):
    """Lists the cards below the page of the methods."""
    cards = [{Path(uri).stem: uri} for uri in added_files() if uri.startswith('methods/')]
    methods = {'Methods': [{'Overview': 'methods.md'}, *cards]}
    config.nav = [methods if entry == {'Methods': 'methods.md'} else entry for entry in config.nav]
    return config


def on_files(files, config):
    """Adds the files from outside docs/."""
    for uri, path in added_files().items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Rewrites links and pictures, outside fenced blocks."""
    added = added_files().get(page.file.src_uri)
    source = f'docs/{page.file.src_uri}' if added is None else added.relative_to(ROOT).as_posix()
    pieces = FENCE.split(markdown)
    return ''.join(piece if piece.startswith('```') else rewritten(piece, source, config) for piece in pieces)


def rewritten(markdown: str, source: str, config) -> str:
    """Markdown without fences, as the site needs it."""

    def link(match: re.Match) -> str:
        mark, text, href = match.groups()
        if '://' in href or href.startswith(('#', 'mailto:')):
            return match[0]
        path, _, anchor = href.partition('#')
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        place = site_path(target)
        if place is not None:
            start = posixpath.dirname(site_path(source)) or '.'
            return f'{mark}[{text}]({posixpath.relpath(place, start)}{"#" + anchor if anchor else ""})'
        if config.repo_url:
            return f'{mark}[{text}]({config.repo_url.rstrip("/")}/blob/main/{target})'
        return text

    def picture(match: re.Match) -> str:
        dark, alt, light = match.groups()
        return f'![{alt}]({light}#only-light)\n![{alt}]({dark}#only-dark)'

    return LINK.sub(link, PICTURE.sub(picture, markdown))
