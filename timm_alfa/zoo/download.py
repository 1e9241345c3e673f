"""From a name to a folder of verified weights: in the package, in the cache, or from the Hub."""

import os
import re
from pathlib import Path
from typing import Optional

from timm_alfa.errors import HubError
from timm_alfa.utils.files import sha256_of
from timm_alfa.utils.launcher import launch_command
from timm_alfa.zoo.hub_client import WAITS, explain, persist
from timm_alfa.zoo.manifest import MANIFEST, Row
from timm_alfa.zoo.tags import TAGS

WEIGHTS = 'model.safetensors'
ORG = 'TIMM_ALFA_HUB_ORG'


class PublishedWeights(os.PathLike):
    """A folder that is fetched and verified when somebody asks for its path.

    timm's `local-dir` source opens its folder by way of `os.PathLike` and only when weights are wanted, so this is all
    that a registered tag needs: no entry point is wrapped, and pretrained=False asks for nothing.
    It is true where something is published, which makes timm's `PretrainedCfg.has_weights` true as well.

    Args:
        name: `architecture.tag`.
        row: Its row of the manifest, or None.
        org: In place of the row's organisation, and of the environment's TIMM_ALFA_HUB_ORG.
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
    """The folder with a name's model.safetensors, verified by its sha256.

    An organisation given here or in TIMM_ALFA_HUB_ORG goes before the manifest: its repo ORG/NAME is then loaded at
    its newest revision, and verified against the sha256 that the Hub itself states for the file.

    Raises:
        HubError: Nothing is published; it cannot be reached; or its content is not what was published.
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
        raise HubError(f"the weights of '{name}' ship with the package, but {folder / WEIGHTS} is missing: reinstall.")
    verify(folder / WEIGHTS, row.sha256, f"this package's file of '{name}'", 'Reinstall timm_alfa.')
    return folder


def unpublished(name: str) -> str:
    """What to say of a name that has no weights yet: how to make them."""
    model = name.partition('.')[0]
    tag = TAGS.get(name)
    flags = f'--task {tag.method} {tag.dataset.flags}' if tag else '--task alfa'
    return (
        f"no weights are published for '{name}' yet (pretrained=False works). "
        f'To make them: {launch_command("train.py", "--model", model)} {flags}; '
        f'to publish them: python hub/publish.py OUTPUT/EXPERIMENT --repo-id ORG/{name}; '
        f"to load from there: {ORG}=ORG, or timm.create_model('hf-hub:ORG/{name}', pretrained=True)."
    )


def verify(path: Path, sha256: str, what: str, advice: str) -> None:
    """Compare a file's sha256.

    Raises:
        HubError: It is another.
    """
    if (found := sha256_of(path)) != sha256:
        raise HubError(
            f'{what} is not what was published: its sha256 begins with {found[:12]}, not with {sha256[:12]}. {advice}'
        )


def _from_hub(repo_id: str, revision: Optional[str], row: Optional[Row]) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        path = Path(
            persist(lambda: hf_hub_download(repo_id, WEIGHTS, revision=revision, library_name='timm_alfa'), WAITS)
        )
        sha256 = row.sha256 if row else _stated_sha256(path, repo_id)
    except Exception as error:
        at = f'{repo_id}@{revision}' if revision else repo_id
        # From None: forty frames of the client say less than this line.
        raise HubError(f'cannot load {at}: {explain(error, repo_id)}.') from None
    if sha256 is not None:
        try:
            verify(
                path,
                sha256,
                f'{WEIGHTS} of {repo_id}',
                'It was removed from the cache; load again, and if it is '
                'so again, do not use it and tell those who published it.',
            )
        except HubError:
            path.resolve().unlink(missing_ok=True)  # the cache answers by name, not by content: it would stay for ever
            path.unlink(missing_ok=True)
            raise
    return path.parent


def _stated_sha256(path: Path, repo_id: str) -> Optional[str]:
    """The sha256 that the Hub states for a cached file, or None where it is stored in git and has none."""
    blob = path.resolve().name  # the cache names its blobs by etag, which is the sha256 of a large file
    if not re.fullmatch('[0-9a-f]{64}', blob):
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

        if constants.is_offline_mode():
            return None
        blob = get_hf_file_metadata(hf_hub_url(repo_id, WEIGHTS, revision=path.parent.name)).etag or ''
    return blob if re.fullmatch('[0-9a-f]{64}', blob) else None
