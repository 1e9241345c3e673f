"""From a name to a folder of verified weights: in the package, in the cache, or from the Hub."""

import os
import re
from pathlib import Path
from typing import Optional

from timm_alfa.errors import HubError
from timm_alfa.utils.files import sha256_of
from timm_alfa.utils.program import launch_command, spelling
from timm_alfa.zoo.hub_client import WAITS, TooSlow, call_with_timeout, explain, refusing_paths, retry
from timm_alfa.zoo.manifest import MANIFEST, Row
from timm_alfa.zoo.tags import TAGS

WEIGHTS = 'model.safetensors'
ORG = 'TIMM_ALFA_HUB_ORG'
TIMEOUT = 'TIMM_ALFA_DOWNLOAD_TIMEOUT'
SECONDS = 1800.0  # of a whole download: the largest weights, 240 MB, take that at 1 Mbit/s


class PublishedWeights(os.PathLike):
    """A folder that is fetched and verified when its path is needed.

    timm's `local-dir` source opens its folder through `os.PathLike` and only when weights are wanted, so this is all
    that a registered tag needs: no entry point is wrapped, and nothing is fetched with pretrained=False.
    It is true if weights are published, which makes timm's `PretrainedCfg.has_weights` true as well.

    Args:
        name: `architecture.tag`.
        row: Its row of the manifest, or None.
        org: Overrides the row's organization, and TIMM_ALFA_HUB_ORG in the environment.
        root: The folder that the row's `file` is relative to.
    """

    def __init__(self, name: str, row: Optional[Row] = None, org: Optional[str] = None, root: Path = MANIFEST.parent):
        self.name, self.row, self.org, self.root = name, row, org, Path(root)

    def __fspath__(self) -> str:
        return str(fetch(self.name, self.row, self.org, self.root))

    def __bool__(self) -> bool:
        return self.row is not None

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.name!r})'


def fetch(name: str, row: Optional[Row] = None, org: Optional[str] = None, root: Path = MANIFEST.parent) -> Path:
    """Fetch the folder with a name's model.safetensors, verified by its sha256.

    An organization passed here or in TIMM_ALFA_HUB_ORG takes precedence over the manifest: the newest revision of its
    repo ORG/NAME is loaded, and verified against the sha256 that the Hub states for the file.

    Raises:
        HubError: Nothing is published, it cannot be downloaded, or its content is not what was published.
    """
    org = org or os.environ.get(ORG)
    if org:
        return _from_hub(f'{org}/{name}', None, None)
    if row is None:
        raise HubError(unpublished(name))
    folder = Path(root) / (row.file or '')
    if row.repo_id and not (row.file and (folder / WEIGHTS).is_file()):
        return _from_hub(row.repo_id, row.revision, row)
    if not (folder / WEIGHTS).is_file():
        raise HubError(
            f"the weights of '{name}' ship with the package, but {folder / WEIGHTS} is missing: reinstall timm_alfa."
        )
    verify(folder / WEIGHTS, row.sha256, f"the package's file of '{name}'", 'Reinstall timm_alfa.')
    return folder


def unpublished(name: str) -> str:
    """The message for a name that has no weights yet: how to train and publish them."""
    model = name.partition('.')[0]
    tag = TAGS.get(name)
    flags = f'--task {tag.method} {tag.dataset.flags}' if tag else '--task alfa'
    return (
        f"no weights are published for '{name}' yet (pretrained=False works). "
        f'To train them: {launch_command(*spelling("train").launch, "--model", model)} {flags}; '
        f'to publish them: {" ".join(spelling("publish").start)} OUTPUT/EXPERIMENT --repo-id ORG/{name}; '
        f"to load them from there: set {ORG}=ORG, or use timm.create_model('hf-hub:ORG/{name}', pretrained=True)."
    )


def verify(path: Path, sha256: str, what: str, advice: str) -> None:
    """Compare a file's sha256 with the expected one.

    Raises:
        HubError: They differ.
    """
    found = sha256_of(path)
    if found != sha256:
        raise HubError(
            f'{what} is not what was published: its sha256 begins with {found[:12]} instead of {sha256[:12]}. {advice}'
        )


def _from_hub(repo_id: str, revision: Optional[str], row: Optional[Row]) -> Path:
    at = f'{repo_id}@{revision}' if revision else repo_id
    limit = time_limit()
    try:
        path, stated = call_with_timeout(limit, lambda: _download(repo_id, revision, stated=row is None))
    except TooSlow:
        raise HubError(
            f'cannot load {at}: the download took longer than {limit:g} seconds and was abandoned. Check the '
            f'connection, or set {TIMEOUT} to more seconds.'
        ) from None
    except Exception as error:
        # From None: forty frames of the client say less than this line.
        raise HubError(f'cannot load {at}: {explain(error, repo_id)}.') from None
    sha256 = row.sha256 if row else stated
    if sha256 is not None:
        _verify_cached(path, sha256, repo_id)
    return path.parent


def _verify_cached(path: Path, sha256: str, repo_id: str) -> None:
    """Verify a cached file; one that differs is removed, because the cache would return it for ever."""
    advice = 'It was removed from the cache; load it again, and if this repeats, do not use it and tell its publisher.'
    try:
        verify(path, sha256, f'{WEIGHTS} of {repo_id}', advice)
    except HubError:
        _remove_from_cache(path)
        raise


def time_limit() -> float:
    """Seconds that a download may take, from TIMM_ALFA_DOWNLOAD_TIMEOUT.

    Raises:
        HubError: The variable is not a positive number.
    """
    text = os.environ.get(TIMEOUT) or SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 1e6:
        raise HubError(f"{TIMEOUT} is '{text}': set it to a number of seconds, such as {SECONDS:g}.")
    return seconds


def _download(repo_id: str, revision: Optional[str], stated: bool) -> tuple[Path, Optional[str]]:
    """The cached weights, downloaded if they are not there yet; with `stated`, also the sha256 that the Hub states."""
    from huggingface_hub import hf_hub_download

    with refusing_paths():
        path = retry(lambda: hf_hub_download(repo_id, WEIGHTS, revision=revision, library_name='timm_alfa'), WAITS)
        return Path(path), _stated_sha256(Path(path), repo_id) if stated else None


def _stated_sha256(path: Path, repo_id: str) -> Optional[str]:
    """The sha256 that the Hub states for a cached file, or None if the file is stored in git and has none."""
    etag = path.resolve().name  # the cache names its blobs by etag, which is the sha256 of a large file
    if not _is_sha256(etag):
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

        if constants.is_offline_mode():
            return None
        etag = get_hf_file_metadata(hf_hub_url(repo_id, WEIGHTS, revision=path.parent.name)).etag or ''
    return etag if _is_sha256(etag) else None


def _is_sha256(text: str) -> bool:
    return re.fullmatch('[0-9a-f]{64}', text) is not None


def _remove_from_cache(path: Path) -> None:
    """Remove a cached file and the blob that it links to; what is outside the cache is not this program's to remove."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).resolve()
    link = path.parent.resolve() / path.name
    for each in (path.resolve(), link):
        if cache in each.parents:
            each.unlink(missing_ok=True)
