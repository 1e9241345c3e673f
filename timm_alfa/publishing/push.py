"""A folder as one commit on the Hub: all of it arrives, or the Hub is as it was."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional

from timm_alfa.errors import HubError
from timm_alfa.utils.files import sha256_of
from timm_alfa.zoo.download import WEIGHTS
from timm_alfa.zoo.hub_client import LOGIN, WAITS, explain, is_transient, persist, status_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi


class Sent(NamedTuple):
    """The commit and its repo's page."""

    commit: str
    url: str


def push(
    folder: Path,
    repo_id: str,
    *,
    message: str,
    revision: str = 'main',
    private: bool = False,
    exist_ok: bool = False,
    token: Optional[str] = None,
    waits: Sequence[float] = WAITS,
) -> Sent:
    """Send the files of a folder as one commit.

    A repo or a branch that this call made is removed again when the commit fails. Requests that failed for a reason
    that may pass are made again; a commit whose answer was lost is looked for before it is sent twice.

    Args:
        folder: Files only; model.safetensors among them.
        repo_id: ORG/NAME.
        message: Of the commit.
        revision: A branch.
        private: Of a repo that is made.
        exist_ok: Whether the repo may be there already.
        token: In place of the one logged in with.
        waits: Seconds before each further attempt.

    Raises:
        HubError: Why, that nothing was published, and how to go on.
    """
    from huggingface_hub import HfApi, get_token

    if not (token or get_token()):
        raise HubError(
            f'publishing needs a token, and there is none: {LOGIN} (https://huggingface.co/settings/tokens, '
            'with the right to write). Nothing was sent.'
        )
    api = HfApi(token=token, library_name='timm_alfa')
    undo: list[tuple[str, Callable[[], None]]] = []
    try:
        _make_repo(api, repo_id, private, exist_ok, waits, undo, revision)
        parent = _make_branch(api, repo_id, revision, waits, undo)
        commit = _commit(api, folder, repo_id, revision, parent, message, waits)
    except HubError:
        raise
    except BaseException as error:
        left = _undo(undo)
        if not isinstance(error, Exception):  # the user interrupted
            raise
        raise HubError(f'publishing to {repo_id} failed: {explain(error, repo_id)}. {left}') from None
    return Sent(commit, f'{api.endpoint}/{repo_id}')


def _make_repo(
    api: 'HfApi',
    repo_id: str,
    private: bool,
    exist_ok: bool,
    waits: Sequence[float],
    undo: list,
    revision: str,
) -> None:
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = persist(lambda: api.model_info(repo_id), waits)
    except RepositoryNotFoundError:
        # Asked for again after a lost answer it may be there already: it was not before, so it is ours.
        undo.append(
            (
                f'an empty repo may be left at {api.endpoint}/{repo_id}: run again with --exist-ok, or delete it.',
                lambda: _delete_empty(api, repo_id, revision),
            )
        )
        persist(lambda: api.create_repo(repo_id, private=private, exist_ok=True), waits)
        return
    if not exist_ok:
        raise HubError(f'{repo_id} is there already: add --exist-ok to add a commit to it, or give another --repo-id.')
    if private and not info.private:
        raise HubError(f'{repo_id} is there already and public: drop --private, or change it in its settings first.')


def _delete_empty(api: 'HfApi', repo_id: str, revision: str) -> None:
    """Delete a repo that this call made, if nothing has arrived in it (not even what is not known to have)."""
    from huggingface_hub.errors import RevisionNotFoundError

    for branch in {None, None if revision == 'main' else revision}:
        try:
            files = api.model_info(repo_id, revision=branch).siblings or []
        except RevisionNotFoundError:
            continue
        if any(file.rfilename not in ('.gitattributes', 'README.md') for file in files):
            raise HubError('it is not empty')
    api.delete_repo(repo_id, missing_ok=True)


def _make_branch(api: 'HfApi', repo_id: str, revision: str, waits: Sequence[float], undo: list) -> str:
    """The commit that the branch is at; the branch is made where it is not there."""
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        return persist(lambda: api.model_info(repo_id, revision=revision), waits).sha
    except RevisionNotFoundError:
        if not undo:  # else the repo goes, and its branches with it
            undo.append(
                (
                    f"a branch '{revision}' may be left in {repo_id}; it has nothing new in it.",
                    lambda: api.delete_branch(repo_id, branch=revision),
                )
            )
        persist(lambda: api.create_branch(repo_id, branch=revision, exist_ok=True), waits)
    return persist(lambda: api.model_info(repo_id, revision=revision), waits).sha


def _commit(
    api: 'HfApi', folder: Path, repo_id: str, revision: str, parent: str, message: str, waits: Sequence[float]
) -> str:
    from huggingface_hub import CommitOperationAdd

    adds = [CommitOperationAdd(path.name, str(path)) for path in sorted(folder.iterdir())]
    # The large files first; the client repeats these requests itself, and sends nothing twice.
    api.preupload_lfs_files(repo_id, adds, revision=revision, free_memory=False)
    sha256, asked = sha256_of(folder / WEIGHTS), []

    def landed() -> Optional[str]:
        """The branch's commit, if it is a new one with these weights: it arrived although its answer did not."""
        asked.append(False)
        try:
            head = api.model_info(repo_id, revision=revision).sha
            files = api.get_paths_info(repo_id, [WEIGHTS], revision=revision) if head != parent else []
        except Exception:  # the Hub cannot be asked now: what the commit raised is what counts
            return None
        asked[-1] = True
        return head if any(file.lfs and file.lfs.sha256 == sha256 for file in files) else None

    try:
        return persist(
            lambda: (
                api.create_commit(repo_id, adds, commit_message=message, revision=revision, parent_commit=parent).oid
            ),
            waits,
            done=landed,
        )
    except Exception as error:
        if is_transient(error) and not asked[-1]:
            raise HubError(
                f'the connection was lost while {repo_id} was committed to, and the Hub cannot be asked whether the '
                f'commit arrived ({type(error).__name__}): look at {api.endpoint}/{repo_id}; if it did not, run again '
                'with --exist-ok.'
            ) from None
        raise


def _undo(steps: list[tuple[str, Callable[[], None]]]) -> str:
    """Take back what was made; the line that says how things are and how to go on."""
    left = []
    for otherwise, step in reversed(steps):
        try:
            step()
        except Exception as error:
            if status_of(error) != 404:
                left.append(otherwise)
    state = ' '.join(left) if left else 'Run the same command again when that is mended.'
    return f'Nothing was published{"; " if left else " and the Hub is as it was. "}{state}'
