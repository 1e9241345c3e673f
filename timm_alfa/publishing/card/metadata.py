"""A model card's metadata, which the Hub reads: from a run, through huggingface_hub's own classes."""

from typing import TYPE_CHECKING, Any, Optional

from timm_alfa.data.datasets import registry
from timm_alfa.publishing.card.license import license_fields
from timm_alfa.publishing.card.starting_weights import pretrained_name, published_cfg
from timm_alfa.training.run_dir.finished import FinishedRun
from timm_alfa.utils.redact import redact
from timm_alfa.utils.text import printable
from timm_alfa.zoo.manifest import load_manifest

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData


def card_data(
    run: FinishedRun, name: str, license: Optional[str] = None, dataset_id: Optional[str] = None
) -> 'ModelCardData':
    """Build the card's metadata.

    Args:
        run: What is published.
        name: The repo's name, without its organization.
        license: As in `license_fields`.
        dataset_id: The dataset's id on the Hub, in place of what the run's `--dataset` says.

    Raises:
        HubError: The license is not known.
    """
    from huggingface_hub import ModelCardData

    title, hub_id = dataset_names(run, dataset_id)
    task = run.record['task']
    tags = ['timm', 'image-classification', *(['alfa'] if task == 'l_alfa' else []), task.replace('_', '-')]
    fields = dict(
        library_name='timm',
        pipeline_tag='image-classification',
        tags=tags,
        metrics=['accuracy'],
        model_name=name,
        datasets=[hub_id] if '/' in hub_id else None,
        base_model=base_model(run),
        base_model_relation='finetune' if base_model(run) else None,
        **license_fields(run, license, dataset_id),
    )
    return ModelCardData(**plain(fields), eval_results=eval_results(run, title, hub_id))


def eval_results(run: FinishedRun, title: str, hub_id: str) -> list['EvalResult']:
    """The run's measured accuracies, as `model-index` states them."""
    from huggingface_hub import EvalResult

    found = run.evaluation
    figures = (
        ('Top-1 accuracy', found.top1),
        ('Top-5 accuracy', found.top5),
        ('Robust top-1 accuracy', found.robust_top1),
    )
    dataset = plain(dict(dataset_type=hub_id, dataset_name=title, dataset_split=found.split))
    return [
        EvalResult(
            task_type='image-classification',
            task_name='Image Classification',
            metric_type='accuracy',
            metric_name=name,
            metric_value=round(float(value), 3),
            **dataset,
        )
        for name, value in figures
        if value is not None
    ]


def plain(value: Any) -> Any:
    """Text without secrets and without the characters that YAML would take for a line break; lists and mappings of it.

    YAML 1.1 breaks lines at U+0085, U+2028 and U+2029, YAML 1.2 does not: what one library writes, another reads
    differently.
    """
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return printable(redact(value)) if isinstance(value, str) else value


def dataset_names(run: FinishedRun, dataset_id: Optional[str] = None) -> tuple[str, str]:
    """A dataset's title, and its id on the Hub or else a word for it. Neither holds a path of a machine."""
    if run.dataset:
        return run.dataset.title, dataset_id or run.dataset.hub_id or run.dataset.key
    last = run.record['dataset'].rstrip('/').rsplit('/', 1)[-1] or 'custom'
    name = dataset_id or registry.hub_id(run.record['dataset']) or last
    return name, name


def base_model(run: FinishedRun) -> Optional[str]:
    """The Hub's id of the weights that training started from, or None if they are not there."""
    model = pretrained_name(run)
    if model is None:
        return None
    if model.startswith(('hf-hub:', 'hf_hub:')):
        return model.partition(':')[2].partition('@')[0]
    cfg = published_cfg(model)
    if cfg is None:
        return None
    row = load_manifest().get(f'{cfg.architecture}.{cfg.tag}')
    return row.repo_id if row else cfg.hf_hub_id
