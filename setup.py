"""What pyproject.toml cannot say: recipes/ is data of the package, and its index cannot follow links of the README."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

ROOT = Path(__file__).parent


def packages() -> list[str]:
    """The package's own, and the folders of recipes at the top of the repository."""
    recipes = (f'timm_alfa.recipes.{name}' for name in find_namespace_packages(str(ROOT / 'recipes')))
    own = find_namespace_packages(str(ROOT), include=['timm_alfa*'], exclude=['*.__pycache__'])  # folders of data, too
    return [*own, 'timm_alfa.recipes', *recipes]


def long_description() -> str:
    """The README as a package index can show it: without pictures and links of the repository, which has no address."""
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    text = re.sub(r'<picture>.*?</picture>\n*', '', text, flags=re.DOTALL)
    return re.sub(r'(?<!!)\[([^\]]+)\]\((?!https?://|#)[^)]+\)', r'\1', text)


setup(
    packages=packages(),
    package_dir={'timm_alfa.recipes': 'recipes'},
    long_description=long_description(),
    long_description_content_type='text/markdown',
)
