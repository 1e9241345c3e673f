"""Under which terms weights are published: those that were said, or those known of what they were trained on."""

from typing import Optional

import timm

from timm_alfa.errors import HubError
from timm_alfa.training.run_dir.finished import Run
from timm_alfa.zoo.tags import DATASETS, TAGS, DataSet

_IMAGENET = {'in1k', 'in12k', 'in21k', 'in22k'}  # parts of timm's tags
_OPEN = (None, 'apache-2.0', 'bsd-3-clause', 'mit')  # what adds nothing to ImageNet's terms


def terms(run: Run, license: Optional[str] = None, dataset_id: Optional[str] = None) -> dict[str, str]:
    """The terms as fields of the card's metadata; ImageNet's where anything came from ImageNet.

    Args:
        run: What is published.
        license: An identifier of the Hub's, in place of what is known.
        dataset_id: As in `sources`.

    Raises:
        HubError: None were given, and those of something that the weights come from are not known.
    """
    if license:
        return {'license': license}
    found = sources(run, dataset_id)
    if unknown := [what for what, row in found.items() if row is None]:
        raise HubError(
            f'the terms of weights from {" and ".join(unknown)} are not known: add --license ID, an identifier of the '
            "Hub's such as apache-2.0, cc-by-nc-4.0 or other"
            f'{"" if run.dataset else " (or, of ImageNet by another name, --dataset-id ILSVRC/imagenet-1k)"}.'
        )
    return max(found.values(), key=_is_imagenet).license


def from_imagenet(run: Run, dataset_id: Optional[str] = None) -> bool:
    """Whether the weights were trained on ImageNet, or started from weights that were."""
    return any(row is not None and _is_imagenet(row) for row in sources(run, dataset_id).values())


def sources(run: Run, dataset_id: Optional[str] = None) -> dict[str, Optional[DataSet]]:
    """What the weights come from, in words, and its data set (None: not a known one).

    Args:
        run: What is published.
        dataset_id: The data set's id on the Hub, where the run's `--dataset` does not say it.
    """
    found = {f"--dataset '{run.record['dataset']}'": run.dataset_as(dataset_id)}
    if run.args.get('initial_checkpoint'):
        found[f"--initial-checkpoint '{run.args['initial_checkpoint']}'"] = None
    elif run.args.get('pretrained'):
        model = str(run.args.get('model') or run.record['model'])
        found[f"--pretrained '{model}'"] = _trained_on(model)
    return found


def _trained_on(model: str) -> Optional[DataSet]:
    """The data set of a model's published weights, where it and nothing else decides on their terms."""
    try:
        cfg = timm.get_pretrained_cfg(model)
    except RuntimeError:  # a tag that this timm does not know
        return None
    if cfg is None:
        return None
    if (tag := TAGS.get(f'{cfg.architecture}.{cfg.tag}')) is not None:
        return tag.dataset
    return DATASETS['in1k'] if _IMAGENET & set(cfg.tag.split('_')) and cfg.license in _OPEN else None


def _is_imagenet(row: DataSet) -> bool:
    return row.key == 'in1k'
