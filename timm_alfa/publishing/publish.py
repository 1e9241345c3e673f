"""Publish a run: check it, lay the repo out in a folder, and send that folder as one commit."""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional, Union

from torch import nn

from timm_alfa.errors import HubError
from timm_alfa.publishing.card import build_card
from timm_alfa.publishing.push import push
from timm_alfa.publishing.robust_record import read_validated, with_robust
from timm_alfa.publishing.verify import check_reproduced
from timm_alfa.training.run_dir.finished import Run, check_name, load_model, read_run
from timm_alfa.utils.files import sha256_of
from timm_alfa.zoo.download import WEIGHTS
from timm_alfa.zoo.manifest import Row, cfg_of

# Of a run folder, what goes along as it is, where it is there.
_EXTRAS = ('args.yaml', 'summary.csv', 'curves.png', 'eta.png')

Evaluate = Callable[[nn.Module, Run], Optional[tuple[float, int]]]


@dataclasses.dataclass(frozen=True)
class Publication:
    """What to publish, and how to call it.

    Args:
        run: A run folder of train.py.
        repo_id: ORG/NAME; NAME is best `architecture.tag`.
        revision: A branch; it is made where it is not there.
        standard: The run folder of standard training to compare with on the card.
        license: An identifier of the Hub's, in place of what is known of the data set and of the starting weights.
        dataset_id: The data set's id on the Hub, where the run's `--dataset` does not say it.
        validated: A file with validate.py's record of the run's weights (and of the standard run's) under attack.
    """

    run: Union[str, Path]
    repo_id: str
    revision: str = 'main'
    standard: Optional[Union[str, Path]] = None
    license: Optional[str] = None
    dataset_id: Optional[str] = None
    validated: Optional[Union[str, Path]] = None

    @property
    def name(self) -> str:
        return self.repo_id.partition('/')[2]


def check_run(
    folder: Union[str, Path],
    name: str,
    evaluate: Optional[Evaluate] = None,
    dataset_id: Optional[str] = None,
) -> tuple[Run, Optional[int]]:
    """Everything of a run that can be checked on this machine.

    Args:
        folder: The run's.
        name: What its weights are to be called.
        evaluate: Given the loaded model and the run, top-1 in percent on a sample of the split that the record names,
            and the sample's size; None where the data is not at hand.
        dataset_id: The data set's id on the Hub, where the run's `--dataset` does not say it.

    Returns:
        The run, and on how many images the recorded accuracy was reproduced (None: it was not).

    Raises:
        HubError: A name that is not the run's.
        CheckpointError: A run that cannot be published, or an accuracy that is not these weights'.
    """
    run = read_run(folder)
    check_name(run, name, dataset_id)
    model = load_model(run)
    sample = evaluate(model, run) if evaluate else None
    if sample is None:
        return run, None
    found = run.evaluation
    check_reproduced(found.top1, sample[0], sample[1], found.images, found.split)
    return run, sample[1]


def check_repo_id(repo_id: str) -> None:
    """ORG/NAME, as the Hub takes it.

    Raises:
        HubError: It is none.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
        fault = None if repo_id.count('/') == 1 else 'it has no organisation or user'
    except HFValidationError as error:
        fault = str(error).rstrip('.')
    if fault:
        raise HubError(f"'{repo_id}' is no repo id: {fault}. Give ORG/NAME, such as me/resnet50.alfa_in1k.")


def stage(publication: Publication, run: Run, standard: Optional[Run], folder: Path) -> list[str]:
    """Write the repo's files into an empty folder.

    Returns:
        Their names.
    """
    card = build_card(
        run, publication.repo_id, publication.revision, standard, publication.license, publication.dataset_id
    )
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run.weights, folder / WEIGHTS)
    record = {key: value for key, value in run.record.items() if key != 'run'}  # a path of the machine it ran on
    for name, values in (
        ('config.json', published_config(run, publication.name, card.data.license)),
        ('result.json', {**record, 'checkpoint': WEIGHTS}),
    ):
        (folder / name).write_text(json.dumps(values, indent=2) + '\n', encoding='utf-8')
    for name in _EXTRAS:
        if (run.folder / name).is_file():
            shutil.copyfile(run.folder / name, folder / name)
    card.save(folder / 'README.md')
    return sorted(path.name for path in folder.iterdir())


def published_config(run: Run, name: str, license: Optional[str]) -> dict[str, Any]:
    """The run's config.json, which train.py keeps free of the architecture's other weights, with its tag and terms."""
    own = {'license': license, 'tag': name.partition('.')[2] or run.record['task']}
    return {**run.config, 'pretrained_cfg': {**run.config['pretrained_cfg'], **own}}


def manifest_row(run: Run, name: str, weights: Path, **where) -> Row:
    """The row of manifest.json that makes a name load these weights from `where`: repo_id and revision, or file."""
    precision = run.record.get('mixed_precision')
    return Row(
        name=name,
        sha256=sha256_of(weights),
        size=weights.stat().st_size,
        top1=round(run.evaluation.top1, 3),
        split=run.evaluation.split,
        precision=None if precision == 'no' else precision,
        commit=run.record.get('commit'),
        pretrained_cfg=cfg_of(run.config),
        **where,
    )


def publish(
    publication: Publication,
    *,
    private: bool = False,
    exist_ok: bool = False,
    output: Optional[Union[str, Path]] = None,
    token: Optional[str] = None,
    evaluate: Optional[Evaluate] = None,
) -> dict[str, Any]:
    """Check a run and publish it in one commit, or (with `output`) write what would be sent.

    Args:
        publication: What to publish.
        private: Make the repo a private one.
        exist_ok: Add the commit to a repo that exists.
        output: A folder, new or empty: nothing is sent.
        token: In place of the one logged in with.
        evaluate: As in `check_run`.

    Returns:
        A record: status ('published' or 'dry-run'), repo_id, revision (the commit), url, files, reproduced_on (images
        that the recorded accuracy was reproduced on, or None) and manifest_row.

    Raises:
        AlfaError: In one line, with nothing changed on the Hub.
    """
    if output is not None and Path(output).exists() and (not Path(output).is_dir() or any(Path(output).iterdir())):
        raise HubError(f"'{output}' is there and not empty: give a new folder.")
    check_repo_id(publication.repo_id)
    standard = read_run(publication.standard) if publication.standard else None
    measured = read_validated(publication.validated) if publication.validated else []
    run, count = check_run(publication.run, publication.name, evaluate, publication.dataset_id)
    run, *rest = with_robust(measured, [run, standard] if standard else [run])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(output or scratch)
        files = stage(publication, run, rest[0] if rest else None, folder)
        sent = (
            None
            if output is not None
            else push(
                folder,
                publication.repo_id,
                revision=publication.revision,
                private=private,
                exist_ok=exist_ok,
                token=token,
                message=f'Publish {publication.name}: {run.evaluation.top1:.2f}% top-1 on {run.evaluation.split}',
            )
        )
        row = manifest_row(
            run, publication.name, folder / WEIGHTS, repo_id=publication.repo_id, revision=sent and sent.commit
        )
    return {
        'status': 'published' if sent else 'dry-run',
        'repo_id': publication.repo_id,
        'revision': sent and sent.commit,
        'url': sent and sent.url,
        'files': files,
        'reproduced_on': count,
        'manifest_row': {key: value for key, value in dataclasses.asdict(row).items() if value is not None},
    }
