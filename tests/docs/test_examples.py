"""Every Python example that a reader meets runs as it stands."""

import pytest
from pages import PAGES, ROOT, blocks

EXAMPLES = {f'{page}:{i}': code for page in PAGES for i, code in enumerate(blocks(page, 'python'))}


@pytest.mark.parametrize('name', EXAMPLES)
def test_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[name], name, 'exec'), {})


def test_readme_and_every_card_have_one():
    cards = [str(path.relative_to(ROOT)) for path in ROOT.glob('timm_alfa/tasks/cards/*.md')]
    assert cards
    for page in ['README.md', *cards]:
        assert f'{page}:0' in EXAMPLES, f'{page} has no Python example'
