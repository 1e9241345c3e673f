"""The model card: a template, filled from a run's record."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from timm_alfa.publishing.card import sections, training
from timm_alfa.publishing.card.license import from_imagenet
from timm_alfa.publishing.card.metadata import card_data, dataset_names
from timm_alfa.publishing.card.project import INSTALL, REPOSITORY
from timm_alfa.publishing.card.snippets import is_ours, snippets
from timm_alfa.publishing.record_checks import without_paths
from timm_alfa.publishing.repo_files import has_plot
from timm_alfa.training.run_dir.finished import FinishedRun
from timm_alfa.utils.markdown import code_block, code_span, escape, link

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

TEMPLATE = Path(__file__).with_name('card.md.jinja')

_LICENSE_TEXT = 'The weights are licensed under {license}. The terms of the dataset may apply to them, too.'
_OTHER_LICENSE_TEXT = 'The license of the weights is not a standard one: ask who published them.'
_IMAGENET_TEXT = (
    'The weights were trained on ImageNet, or from weights that were. Assume that its terms of access apply to them: '
    'non-commercial research only.'
)


def build_card(
    run: FinishedRun,
    repo_id: str,
    revision: str = 'main',
    standard: Optional[FinishedRun] = None,
    license: Optional[str] = None,
    dataset_id: Optional[str] = None,
) -> 'ModelCard':
    """Build the card of a run.

    Args:
        run: What is published.
        repo_id: ORG/NAME.
        revision: The branch that it is published to, which the card's snippets load from.
        standard: The run of standard training to compare with.
        license: As in `card_data`.
        dataset_id: As in `card_data`.

    Raises:
        HubError: `standard` is not the baseline of this run, or the license is not known.
    """
    from huggingface_hub import ModelCard

    name = repo_id.partition('/')[2]
    data = card_data(run, name, license, dataset_id)
    imagenet = from_imagenet(run, dataset_id)
    run = without_paths(run)
    body = _render(
        name=name,
        details=sections.details(run, dataset_id, data.license),
        **_usage(run, repo_id, revision),
        **_summary(run, dataset_id),
        **_evaluation(run, standard),
        **_training(run),
        license_text=_license_text(imagenet, data.license),
    )
    return ModelCard(f'---\n{data.to_yaml()}\n---\n\n{body}')


def _license_text(imagenet: bool, license: Optional[str]) -> str:
    """What the card's limitations say of the license."""
    if imagenet:
        return _IMAGENET_TEXT
    return _OTHER_LICENSE_TEXT if license == 'other' else _LICENSE_TEXT.format(license=license)


def _usage(run: FinishedRun, repo_id: str, revision: str) -> dict[str, Any]:
    ours = is_ours(run.architecture)
    return {
        'install': INSTALL if ours else 'pip install timm',
        'install_ours': None if ours else INSTALL,
        'install_transformers': sections.input_size(run)[0] == 3,
        'repository': REPOSITORY,
        'snippets': snippets(repo_id, revision, run.architecture, sections.input_size(run), run.config),
    }


def _summary(run: FinishedRun, dataset_id: Optional[str]) -> dict[str, Any]:
    title, text = sections.method_texts(run.record['task'])
    _, height, width = sections.input_size(run)
    return {
        'architecture': run.architecture,
        'dataset': dataset_names(run, dataset_id)[0],
        'method_title': title,
        'method_text': text,
        'num_classes': run.config['num_classes'],
        'size': f'{height} x {width}',
    }


def _evaluation(run: FinishedRun, standard: Optional[FinishedRun]) -> dict[str, Any]:
    found = run.evaluation
    rows = sections.accuracy_rows(run, standard)
    return {
        'split': found.split,
        'images': found.images,
        'chosen_on': found.chosen_on,
        'best_epoch': run.record.get('best_epoch'),
        'test_reads': run.record.get('test_reads') or 1,
        'accuracies': sections.accuracy_table(rows),
        'paper_text': sections.paper_text(run),
        'paper_rows': any(row['title'].startswith('Paper') for row in rows),
        'robust_top1': found.robust_top1,
        'attack': sections.format_options(found.attack or {}),
    }


def _training(run: FinishedRun) -> dict[str, Any]:
    return {
        'options': training.option_table(run),
        'eta': training.eta_table(run),
        'eta_plot': 'eta.png' if has_plot(run, 'eta.png') else None,
        'curves': 'curves.png' if has_plot(run, 'curves.png') else None,
        'command': training.command(run),
        'facts': training.facts(run),
    }


def _render(**values) -> str:
    """Fill the template. Whatever it prints is escaped, except what is Markdown already."""
    import jinja2  # torch needs it, too

    environment = jinja2.Environment(  # nosec B701  # Markdown, not HTML: `escape` is applied to every value
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        finalize=escape,
    )
    environment.globals.update(code=code_span, code_block=code_block, link=link)
    return environment.from_string(TEMPLATE.read_text(encoding='utf-8')).render(**values)
