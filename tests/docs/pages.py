"""The pages that tests of the documentation walk over."""
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PATTERNS = ('*.md', 'docs/*.md', 'hub/*.md', 'timm_alfa/tasks/cards/*.md', '.github/**/*.md')
PAGES = sorted(str(path.relative_to(ROOT)) for pattern in _PATTERNS for path in ROOT.glob(pattern))


def read(page: str) -> str:
    """The text of a page, by its path from the root of the repository."""
    return (ROOT / page).read_text(encoding='utf-8')
