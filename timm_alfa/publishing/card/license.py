"""The license that weights are published under: the one passed, or the one known for what they were trained on."""

from typing import Optional

from timm_alfa.errors import HubError
from timm_alfa.publishing.card.starting_weights import pretrained_name, published_cfg
from timm_alfa.training.run_dir.finished import FinishedRun
from timm_alfa.zoo.tags import DATASETS, TAGS, DataSet

_IMAGENET = {'in1k', 'in12k', 'in21k', 'in22k'}  # parts of timm's tags
_OPEN = (None, 'apache-2.0', 'bsd-3-clause', 'mit')  # licenses that add nothing to ImageNet's terms


def license_fields(run: FinishedRun, license: Optional[str] = None, dataset_id: Optional[str] = None) -> dict[str, str]:
    """The license as fields of the card's metadata; ImageNet's terms if anything came from ImageNet.

    Args:
        run: What is published.
        license: An identifier of the Hub, in place of what is known.
        dataset_id: As in `sources`.

    Raises:
        HubError: No license was passed, and that of something that the weights come from is not known.
    """
    if license:
        return {'license': license}
    found = sources(run, dataset_id)
    if unknown := [what for what, row in found.items() if row is None]:
        imagenet = '' if run.dataset else ' (or --dataset-id ILSVRC/imagenet-1k, if it is ImageNet by another name)'
        raise HubError(
            f'the license of weights from {" and ".join(unknown)} is not known: add --license ID, with an identifier '
            f'of the Hub such as apache-2.0, cc-by-nc-4.0 or other{imagenet}.'
        )
    known = [row for row in found.values() if row is not None]
    return max(known, key=_is_imagenet).license


def from_imagenet(run: FinishedRun, dataset_id: Optional[str] = None) -> bool:
    """Whether the weights were trained on ImageNet, or started from weights that were."""
    return any(row is not None and _is_imagenet(row) for row in sources(run, dataset_id).values())


def sources(run: FinishedRun, dataset_id: Optional[str] = None) -> dict[str, Optional[DataSet]]:
    """What the weights come from: the flag that named it, and its dataset (None if it is not a known one).

    Args:
        run: What is published.
        dataset_id: The dataset's id on the Hub, if the run's `--dataset` does not say it.
    """
    found = {f"--dataset '{run.record['dataset']}'": run.dataset_as(dataset_id)}
    if run.args.get('initial_checkpoint'):
        found[f"--initial-checkpoint '{run.args['initial_checkpoint']}'"] = None
    elif (model := pretrained_name(run)) is not None:
        found[f"--pretrained '{model}'"] = _trained_on(model)
    return found


def _trained_on(model: str) -> Optional[DataSet]:
    """The dataset of a model's published weights, if it alone decides on their license."""
    cfg = published_cfg(model)
    if cfg is None:
        return None
    if (tag := TAGS.get(f'{cfg.architecture}.{cfg.tag}')) is not None:
        return tag.dataset
    is_imagenet = bool(_IMAGENET & set((cfg.tag or '').split('_'))) and cfg.license in _OPEN
    return DATASETS['in1k'] if is_imagenet else None


def _is_imagenet(row: DataSet) -> bool:
    return row.key == 'in1k'
