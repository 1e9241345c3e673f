"""Send a folder to the Hub as one commit: either all of it arrives, or the Hub stays as it was."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional

from timm_alfa.errors import HubError
from timm_alfa.publishing.repo_files import files_of
from timm_alfa.utils.files import sha256_of
from timm_alfa.zoo.download import WEIGHTS
from timm_alfa.zoo.hub_client import LOGIN, WAITS, explain, is_transient, retry, status_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi


class Sent(NamedTuple):
    """The commit, and the page of its repo."""

    commit: str
    url: str


class Target(NamedTuple):
    """Where a commit goes, through which client, and how often a request is retried."""

    api: 'HfApi'
    repo_id: str
    revision: str
    waits: Sequence[float]


class Undo(NamedTuple):
    """How to remove what was created, and what to tell the user if that fails."""

    remove: Callable[[], None]
    otherwise: str


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

    If the commit fails, a repo or branch that this call created is removed again. Requests that failed for a reason
    that may pass are retried; if the answer to a commit was lost, the commit is looked for before it is sent again.

    Args:
        folder: Files only; model.safetensors among them.
        repo_id: ORG/NAME.
        message: Of the commit.
        revision: A branch.
        private: Whether a repo that is created is private.
        exist_ok: Whether the repo may exist already.
        token: In place of the one that the user is logged in with.
        waits: Seconds before each further attempt.

    Raises:
        HubError: Why it failed, that nothing was published, and what to do.
    """
    from huggingface_hub import HfApi, get_token

    if not (token or get_token()):
        raise HubError(
            f'publishing needs a token, and there is none: {LOGIN} (https://huggingface.co/settings/tokens, '
            'with permission to write). Nothing was sent.'
        )
    api = HfApi(token=token, library_name='timm_alfa')
    target = Target(api, repo_id, revision, waits)
    created: list[Undo] = []
    try:
        _ensure_repo(target, private, exist_ok, created)
        parent = _ensure_branch(target, created)
        commit = _commit(target, folder, parent, message)
    except HubError:
        raise
    except BaseException as error:
        left = _undo(created)
        if not isinstance(error, Exception):  # the user interrupted
            raise
        raise HubError(f'publishing to {repo_id} failed: {explain(error, repo_id)}. {left}') from None
    return Sent(commit, f'{api.endpoint}/{repo_id}')


def _ensure_repo(target: Target, private: bool, exist_ok: bool, created: list[Undo]) -> None:
    """Create the repo if it does not exist."""
    from huggingface_hub.errors import RepositoryNotFoundError

    api, repo_id = target.api, target.repo_id
    try:
        info = retry(lambda: api.model_info(repo_id), target.waits)
    except RepositoryNotFoundError:
        otherwise = f'an empty repo may be left at {api.endpoint}/{repo_id}: run again with --exist-ok, or delete it.'
        created.append(Undo(lambda: _delete_empty(target), otherwise))
        # exist_ok: if the answer was lost it exists at the next request; it did not before, so it is this call's
        retry(lambda: api.create_repo(repo_id, private=private, exist_ok=True), target.waits)
        return
    if not exist_ok:
        raise HubError(f'{repo_id} already exists: add --exist-ok to add a commit to it, or use another --repo-id.')
    if private and not info.private:
        raise HubError(f'{repo_id} already exists and is public: drop --private, or change it in its settings first.')


def _delete_empty(target: Target) -> None:
    """Delete a repo that this call created, unless something has arrived in it (even something not known to have)."""
    from huggingface_hub.errors import RevisionNotFoundError

    for branch in {None, None if target.revision == 'main' else target.revision}:
        try:
            files = target.api.model_info(target.repo_id, revision=branch).siblings or []
        except RevisionNotFoundError:
            continue
        if any(file.rfilename not in ('.gitattributes', 'README.md') for file in files):
            raise HubError('it is not empty')
    target.api.delete_repo(target.repo_id, missing_ok=True)


def _ensure_branch(target: Target, created: list[Undo]) -> str:
    """Create the branch if it does not exist; returns the commit that it is at."""
    from huggingface_hub.errors import RevisionNotFoundError

    api, repo_id, revision = target.api, target.repo_id, target.revision
    try:
        return retry(lambda: _head(target), target.waits)
    except RevisionNotFoundError:
        if not created:  # else the repo is removed, and its branches with it
            otherwise = f"a branch '{revision}' may be left in {repo_id}, without changes."
            created.append(Undo(lambda: api.delete_branch(repo_id, branch=revision), otherwise))
        retry(lambda: api.create_branch(repo_id, branch=revision, exist_ok=True), target.waits)
    return retry(lambda: _head(target), target.waits)


def _head(target: Target) -> str:
    sha = target.api.model_info(target.repo_id, revision=target.revision).sha
    if sha is None:
        raise HubError(f"the Hub names no commit of {target.repo_id}, branch '{target.revision}': try again later.")
    return sha


def _commit(target: Target, folder: Path, parent: str, message: str) -> str:
    from huggingface_hub import CommitOperationAdd

    api, repo_id, revision = target.api, target.repo_id, target.revision
    adds = [CommitOperationAdd(name, str(path)) for name, path in files_of(folder).items()]

    # the large files first; the client retries these requests itself, and sends nothing twice
    api.preupload_lfs_files(repo_id, adds, revision=revision, free_memory=False)

    # the commit, which is looked for after each failure
    sha256 = sha256_of(folder / WEIGHTS)
    answers: list[bool] = []  # whether the Hub answered, each time

    def create() -> str:
        return api.create_commit(repo_id, adds, commit_message=message, revision=revision, parent_commit=parent).oid

    def find() -> Optional[str]:
        try:
            found = _find_commit(target, parent, sha256)
        except Exception:  # the Hub does not answer now: what the commit raised is what counts
            answers.append(False)
            return None
        answers.append(True)
        return found

    try:
        return retry(create, target.waits, done=find)
    except Exception as error:
        if is_transient(error) and not answers[-1]:
            raise HubError(
                f'the connection was lost during the commit to {repo_id}, and the Hub does not answer whether it '
                f'arrived ({type(error).__name__}): look at {api.endpoint}/{repo_id}; if it did not, run again '
                'with --exist-ok.'
            ) from None
        raise


def _find_commit(target: Target, parent: str, sha256: str) -> Optional[str]:
    """The branch's commit, if it is a new one with these weights: it arrived although its answer was lost."""
    head = _head(target)
    if head == parent:
        return None
    files = target.api.get_paths_info(target.repo_id, [WEIGHTS], revision=target.revision)
    stored = [getattr(file, 'lfs', None) for file in files]  # a folder has none
    return head if any(lfs and lfs.sha256 == sha256 for lfs in stored) else None


def _undo(created: list[Undo]) -> str:
    """Remove what was created; returns the sentences that say how things are and what to do."""
    left = []
    for each in reversed(created):
        try:
            each.remove()
        except Exception as error:
            if status_of(error) != 404:
                left.append(each.otherwise)
    if left:
        return f'Nothing was published; {" ".join(left)}'
    return 'Nothing was published and the Hub is as it was. Run the same command again when this is fixed.'
