"""Publish a run: check it, write the repo's files into a folder, and send that folder as one commit."""

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional, Union

from torch import nn

from timm_alfa.errors import HubError
from timm_alfa.publishing.card.build import build_card
from timm_alfa.publishing.eval_results import eval_results
from timm_alfa.publishing.model_checks import check_name, load_model
from timm_alfa.publishing.push import Sent, push
from timm_alfa.publishing.record_checks import read_public_run
from timm_alfa.publishing.repo_files import write_repo
from timm_alfa.publishing.robust_record import read_records, with_robust
from timm_alfa.publishing.verify import check_accuracy
from timm_alfa.training.options.recipes import recipe_names
from timm_alfa.training.run_dir.finished import FinishedRun
from timm_alfa.utils.files import sha256_of
from timm_alfa.utils.redact import redact
from timm_alfa.zoo.download import WEIGHTS
from timm_alfa.zoo.manifest import Row, cfg_of

Evaluate = Callable[[nn.Module, FinishedRun], Optional[tuple[float, int]]]


@dataclasses.dataclass(frozen=True)
class Publication:
    """What to publish, and under which name.

    Attributes:
        run: A run folder of train.py.
        repo_id: ORG/NAME; NAME is best `architecture.tag`.
        revision: A branch; it is created if it does not exist.
        standard: The run folder of standard training to compare with on the card.
        license: An identifier of the Hub, in place of what is known of the dataset and of the starting weights.
        dataset_id: The dataset's id on the Hub, if the run's `--dataset` does not say it.
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


def publish(
    publication: Publication,
    *,
    private: bool = False,
    exist_ok: bool = False,
    dry_run: bool = False,
    output: Optional[Union[str, Path]] = None,
    token: Optional[str] = None,
    evaluate: Optional[Evaluate] = None,
) -> dict[str, Any]:
    """Check a run and publish it in one commit, or (with `dry_run` or `output`) only make what would be sent.

    Args:
        publication: What to publish.
        private: Make the repo private.
        exist_ok: Add the commit to a repo that exists.
        dry_run: Send nothing.
        output: A folder, new or empty: the files are written there and nothing is sent.
        token: In place of the one that the user is logged in with.
        evaluate: As in `check_run`.

    Returns:
        A record: status ('published' or 'dry-run'), repo_id, revision (the commit), url, files, bytes (of all of them),
        reproduced_on (images that the recorded accuracy was reproduced on, or None) and manifest_row.

    Raises:
        AlfaError: In one line, with nothing changed on the Hub.
    """
    # what can be checked without reading the run
    check_output(output)
    check_repo_id(publication.repo_id)
    check_no_secret(publication.revision, '--revision')

    # the run, and what it is compared with
    standard = read_public_run(publication.standard) if publication.standard else None
    records = read_records(publication.validated) if publication.validated else []
    run, count = check_run(publication.run, publication.name, evaluate, publication.dataset_id)
    run, *rest = with_robust(records, [run, standard] if standard else [run])
    card = build_card(
        run,
        publication.repo_id,
        publication.revision,
        rest[0] if rest else None,
        publication.license,
        publication.dataset_id,
    )

    # the files, and their commit
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(output or scratch)
        results = eval_results(run, publication.repo_id, publication.dataset_id)
        files = write_repo(run, publication.name, card, folder, results)
        sent = None
        if output is None and not dry_run:
            sent = push(
                folder,
                publication.repo_id,
                revision=publication.revision,
                private=private,
                exist_ok=exist_ok,
                token=token,
                message=f'Publish {publication.name}: {run.evaluation.top1:.2f}% top-1 on {run.evaluation.split}',
            )
        return _record(publication, run, sent, files, count, folder)


def check_run(
    folder: Union[str, Path],
    name: str,
    evaluate: Optional[Evaluate] = None,
    dataset_id: Optional[str] = None,
) -> tuple[FinishedRun, Optional[int]]:
    """Check everything about a run that can be checked on this machine.

    Args:
        folder: The run's.
        name: The name that its weights are to have.
        evaluate: Called with the loaded model and the run; returns top-1 in percent on a sample of the split that the
            record names and the sample's size, or None if the data is not on this machine.
        dataset_id: The dataset's id on the Hub, if the run's `--dataset` does not say it.

    Returns:
        The run, and on how many images the recorded accuracy was reproduced (None: it was not).

    Raises:
        HubError: The name is not the run's.
        CheckpointError: The run cannot be published, or its accuracy is not that of its weights.
    """
    check_no_secret(name, 'the name')
    run = read_public_run(folder)
    check_name(run, name, dataset_id)
    model = load_model(run)
    sample = evaluate(model, run) if evaluate else None
    if sample is None:
        return run, None
    top1, count = sample
    found = run.evaluation
    check_accuracy(found.top1, top1, count, found.images, found.split)
    return run, count


def check_output(output: Optional[Union[str, Path]]) -> None:
    """Check that the folder of a dry run is new or empty.

    Raises:
        HubError: It is neither.
    """
    if output is None or not Path(output).exists():
        return
    if not Path(output).is_dir() or any(Path(output).iterdir()):
        raise HubError(f"'{output}' exists and is not an empty folder: choose a new folder.")


def check_repo_id(repo_id: str) -> None:
    """Check that a repo id is ORG/NAME, as the Hub takes it.

    Raises:
        HubError: It is not.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    check_no_secret(repo_id, '--repo-id')
    try:
        validate_repo_id(repo_id)
        error = None if repo_id.count('/') == 1 else 'it has no organization or user'
    except HFValidationError as failed:
        error = str(failed).rstrip('.')
    if error:
        raise HubError(f"'{repo_id}' is not a repo id: {error}. Use ORG/NAME, such as me/resnet50.alfa_in1k.")


def check_no_secret(name: str, what: str) -> None:
    """Check that a name that is to be public does not hold a token.

    Raises:
        HubError: It does.
    """
    if (shown := redact(name)) != name:
        raise HubError(f"{what} is '{shown}', where *** stands for what looks like a secret: use another name.")


def manifest_row(run: FinishedRun, name: str, weights: Path, **where) -> Row:
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
        recipe=recipe_of(run.record.get('command') or ()),
        seed=run.record.get('seed'),
        epochs=run.record.get('epochs'),
        robust_top1=run.evaluation.robust_top1,
        pretrained_cfg=cfg_of(run.config),
        **where,
    )


def recipe_of(command: Sequence[str]) -> Optional[str]:
    """The recipe that a command line names, as `--config` takes it; None if it is not one of this project's.

    Args:
        command: The words of train.py.
    """
    given = dict(itertools.pairwise(command)).get('--config')
    if given is None:
        return None
    name = '/'.join(given.removesuffix('.yaml').replace('\\', '/').split('/')[-2:])
    return name if name in recipe_names() else None


def _record(
    publication: Publication,
    run: FinishedRun,
    sent: Optional[Sent],
    files: list[str],
    count: Optional[int],
    folder: Path,
) -> dict[str, Any]:
    commit, url = sent or (None, None)
    row = manifest_row(run, publication.name, folder / WEIGHTS, repo_id=publication.repo_id, revision=commit)
    return {
        'status': 'published' if sent else 'dry-run',
        'repo_id': publication.repo_id,
        'revision': commit,
        'url': url,
        'files': files,
        'bytes': sum((folder / file).stat().st_size for file in files),
        'reproduced_on': count,
        'manifest_row': {key: value for key, value in dataclasses.asdict(row).items() if value is not None},
    }
