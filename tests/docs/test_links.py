"""Links between pages lead to files and headings that exist."""

import re
from functools import cache
from urllib.parse import unquote

import pytest
from pages import PAGES, ROOT, prose, read

LINK = re.compile(r'\]\(([^()\s]+)\)|(?:src|srcset|href)="([^"]+)"')
HEADING = re.compile(r'^#+ +(.+?) *$', re.MULTILINE)


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading).lower()
    return re.sub(r'[^\w\- ]', '', text).replace(' ', '-')


@cache
def anchors(page: str) -> set[str]:
    return {slug(heading) for heading in HEADING.findall(prose(page))}


def links(page: str) -> list[str]:
    found = [first or second for first, second in LINK.findall(prose(page))]
    return [link for link in found if not re.match(r'\w+:', link)]


@pytest.mark.parametrize('page', PAGES)
def test_links_resolve(page):
    for link in links(page):
        path, _, anchor = unquote(link).partition('#')
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), f'{page}: {link} does not exist'
        if anchor:
            name = str(target.relative_to(ROOT))
            assert anchor in anchors(name), f'{page}: {link} has no such heading'


def test_every_page_of_docs_is_linked_from_the_readme_and_in_the_site():
    for page in (ROOT / 'docs').glob('*.md'):
        if page.name != 'index.md':
            assert f'docs/{page.name}' in links('README.md')
        assert page.name in read('mkdocs.yml')


def test_a_wrong_link_is_found():
    assert slug('`a.b`, and C') == 'ab-and-c'
    assert 'does-it-help' in anchors('README.md')
    assert 'does-it-harm' not in anchors('README.md')
