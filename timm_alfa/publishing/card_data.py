"""A model card's metadata, which the Hub reads: from a run, through huggingface_hub's own classes."""

from typing import TYPE_CHECKING, Optional

import timm

from timm_alfa.data.datasets import registry
from timm_alfa.publishing.license import terms
from timm_alfa.training.run_dir.finished import Run

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData


def eval_results(run: Run, title: str, hub_id: str) -> list['EvalResult']:
    """The run's measured figures, as `model-index` states them."""
    from huggingface_hub import EvalResult

    found = run.evaluation
    figures = (
        ('accuracy', 'Top-1 accuracy', found.top1),
        ('accuracy', 'Top-5 accuracy', found.top5),
        ('accuracy', 'Robust top-1 accuracy', found.robust_top1),
    )
    return [
        EvalResult(
            task_type='image-classification',
            task_name='Image Classification',
            dataset_type=hub_id,
            dataset_name=title,
            dataset_split=found.split,
            metric_type=kind,
            metric_name=name,
            metric_value=round(float(value), 3),
        )
        for kind, name, value in figures
        if value is not None
    ]


def card_data(run: Run, name: str, license: Optional[str] = None, dataset_id: Optional[str] = None) -> 'ModelCardData':
    """The card's metadata.

    Args:
        run: What is published.
        name: The repo's name, without its organisation.
        license: As in `terms`.
        dataset_id: The data set's id on the Hub, in place of what the run's `--dataset` says.

    Raises:
        HubError: Under which terms it is published is not known.
    """
    from huggingface_hub import ModelCardData

    title, hub_id = dataset_names(run, dataset_id)
    task = run.record['task']
    tags = ['timm', 'image-classification', *(['alfa'] if task == 'l_alfa' else []), task.replace('_', '-')]
    return ModelCardData(
        library_name='timm',
        pipeline_tag='image-classification',
        tags=tags,
        metrics=['accuracy'],
        model_name=name,
        datasets=[hub_id] if '/' in hub_id else None,
        base_model=base_model(run),
        eval_results=eval_results(run, title, hub_id),
        **terms(run, license, dataset_id),
    )


def dataset_names(run: Run, dataset_id: Optional[str] = None) -> tuple[str, str]:
    """A data set's title, and its id on the Hub or (without one) a word for it. No path of a machine is in either."""
    if run.dataset:
        return run.dataset.title, dataset_id or run.dataset.hub_id or run.dataset.key
    last = run.record['dataset'].rstrip('/').rsplit('/', 1)[-1] or 'custom'
    found = dataset_id or registry.hub_id(run.record['dataset']) or last
    return found, found


def base_model(run: Run) -> Optional[str]:
    """The Hub's id of the weights that training started from, or None where it started from none of timm's."""
    if not run.args.get('pretrained'):
        return None
    model = str(run.args.get('model') or run.record['model'])
    if model.startswith(('hf-hub:', 'hf_hub:')):
        return model.partition(':')[2].partition('@')[0]
    try:
        return getattr(timm.get_pretrained_cfg(model), 'hf_hub_id', None)
    except RuntimeError:  # a tag that this timm does not know
        return None
