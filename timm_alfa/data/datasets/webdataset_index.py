"""What a tar shard holds: for each sample the position of its image, and its label."""

import json
import re
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, Mapping, NamedTuple, Optional

from timm_alfa.data.datasets.class_map import check_known
from timm_alfa.data.datasets.image_files import image_extensions
from timm_alfa.errors import DataError, first_line, one_of
from timm_alfa.utils.files import open_regular

if TYPE_CHECKING:
    from timm_alfa.data.config import DataConfig

FIRST = ('jpg', 'jpeg', 'png', 'webp')  # of several images in a sample
# Bytes of an image, of a .json file, and of a label.
MAX_IMAGE, MAX_SIDECAR, MAX_LABEL = 1 << 28, 1 << 24, 1000
MAX_NUMBER = 1 << 63
MEMBER = re.compile(r'((?:.*/)?[^./]+)\.([^/]+)')  # the text before the first dot names the sample, as in webdataset
INTEGER = re.compile(r'[-+]?[0-9]+')  # `int` also takes 1_000, and digits of other scripts
Files = dict[str, tarfile.TarInfo]  # a sample's, by extension


class IndexedImage(NamedTuple):
    """Where an image is in its shard, and its label."""

    start: int
    size: int
    target: int


def index_shard(
    path: Path,
    data: 'DataConfig',
    target_key: Optional[str],
    numbers: Mapping[str, int],
) -> list[Optional[IndexedImage]]:
    """Indexes the samples of a shard; one without an image is None.

    Args:
        path: The shard.
        data: `input_key` and `skip_corrupt` have an effect; `class_map` is named in messages.
        target_key: Field of the JSON sidecars that holds the label, in place of the .cls files.
        numbers: The class map; empty without one.

    Raises:
        DataError: The shard, or a label, cannot be used; or without `skip_corrupt` a sample has no image.
    """
    extensions = data.input_key.lower().split(';') if data.input_key else _usual_extensions()
    found: list[Optional[IndexedImage]] = []
    for key, files, archive in samples(path):
        image = next((files[extension] for extension in extensions if extension in files), None)
        if image is None:
            if not data.skip_corrupt:
                raise DataError(
                    f"sample '{key}' of shard '{path}' has no image, only {', '.join(sorted(files))}: pass --input-key "
                    'the extension of its image, or --skip-corrupt to skip such samples.'
                )
            found.append(None)
            continue
        try:
            check_size(image, MAX_IMAGE)
            target = to_number(find_label(files, archive, target_key), data.class_map, numbers)
        except DataError as error:
            raise DataError(f"sample '{key}' of shard '{path}': {error}") from error
        found.append(IndexedImage(image.offset_data, image.size, target))
    return found


def _usual_extensions() -> list[str]:
    """Returns the extensions of images, without dots, those of photographs first."""
    others = {extension[1:] for extension in image_extensions()} - {*FIRST}
    return [*FIRST, *sorted(others)]


def samples(path: Path) -> Iterator[tuple[str, Files, tarfile.TarFile]]:
    """Yields a shard's samples: key, files, archive. Neighbors with the same key are one sample.

    Raises:
        DataError: The shard is missing, is not a tar file, is compressed (no single image could be read), is damaged
            or cut off, or has the same file twice in a sample.
    """
    try:
        with open_regular(path, follow_links=True) as file, tarfile.open(fileobj=file, mode='r:') as archive:
            key = ''
            files: Files = {}
            for member in archive:
                if archive.offset <= member.offset:  # its size is negative: it would come again, for ever
                    raise DataError(f"shard '{path}' is damaged after {key or 'its start'}: copy it again.")
                match = MEMBER.fullmatch(member.name) if member.isfile() else None
                if match is None:
                    continue
                if match[1] != key and files:
                    yield key, files, archive
                    files = {}
                key, extension = match[1], match[2].lower()
                if extension in files:
                    raise DataError(f"shard '{path}' has {key}.{extension} twice: create it again.")
                files[extension] = member
            if not _is_complete(archive):
                raise DataError(f"shard '{path}' is damaged or cut off after {key or 'its start'}: copy it again.")
            if files:
                yield key, files, archive
    except FileNotFoundError as error:
        raise DataError(f"shard '{path}' does not exist: complete the folder.") from error
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"shard '{path}' cannot be read as an uncompressed tar file: {first_line(error)}.") from error


def _is_complete(archive: tarfile.TarFile) -> bool:
    """Whether only zeros, at least a block of them, follow the last member: tarfile stops at any bad header, too."""
    archive.fileobj.seek(archive.offset)
    rest = archive.fileobj.read(tarfile.BLOCKSIZE)
    complete = len(rest) == tarfile.BLOCKSIZE
    while rest and complete:
        complete = not any(rest)
        rest = archive.fileobj.read(1 << 20)
    return complete


def find_label(files: Files, archive: tarfile.TarFile, target_key: Optional[str]) -> str:
    """Returns a sample's label as text: the content of its .cls file, or a field of its .json file.

    Raises:
        DataError: There is none; the message says what there is.
    """
    fields = _sidecar(files, archive) if target_key or 'cls' not in files else {}
    if target_key:
        if target_key not in fields:
            raise DataError(one_of('field --target-key', target_key, sorted(fields)))
        if fields[target_key] is None:
            raise DataError(f"field '{target_key}' is null: remove the sample, or pass another --target-key.")
        return _as_label(fields[target_key], target_key)
    if 'cls' not in files:
        hint = 'add one'
        if fields:
            hint = f'pass --target-key one of the fields of its .json file, {", ".join(sorted(fields))}'
        raise DataError(f'there is no .cls file: {hint}.')
    return read_member(archive, files['cls'], MAX_LABEL).decode('utf-8-sig', 'replace').strip()


def _as_label(value: Any, target_key: str) -> str:
    """Returns a field of a .json file as a label.

    Raises:
        DataError: It is not text or a number, or is too long.
    """
    if not isinstance(value, (str, int, float)):
        raise DataError(f"field '{target_key}' is not text or a number: pass another --target-key.")
    try:
        text = str(value)
    except ValueError:  # Python does not write very long numbers
        text = '9' * (MAX_LABEL + 1)
    if len(text) > MAX_LABEL:
        raise DataError(f"field '{target_key}' is longer than {MAX_LABEL} characters: pass another --target-key.")
    return text


def check_size(member: tarfile.TarInfo, most: int) -> None:
    """Checks that a member is stored as it is, and of a sensible size.

    Raises:
        DataError: It is not.
    """
    if member.issparse():
        raise DataError(
            f"'{member.name}' is sparse, so that it may be any size when it is read: create the shard again."
        )
    if member.size > most:
        raise DataError(f"'{member.name}' is larger than {most} bytes.")


def read_member(archive: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    """Returns the content of a member. Raises like `check_size`."""
    check_size(member, most)
    file = archive.extractfile(member)
    return file.read() if file is not None else b''  # None: not a regular file


def _sidecar(files: Files, archive: tarfile.TarFile) -> dict[str, Any]:
    """Returns the fields of a sample's .json file; {} without a readable one. Raises like `check_size`."""
    if 'json' not in files:
        return {}
    try:
        found = json.loads(read_member(archive, files['json'], MAX_SIDECAR))
    except DataError:
        raise
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def to_number(label: str, class_map: str, numbers: Mapping[str, int]) -> int:
    """Returns a label's number: that of the class map, or without one the label itself.

    Raises:
        DataError: It has none.
    """
    if numbers:
        check_known([label], numbers, class_map)
        return numbers[label]
    if not INTEGER.fullmatch(label):
        raise DataError(
            f"its label '{label}' is not an integer: pass --class-map a file with the names, or another --target-key."
        )
    number = int(label)
    if not -MAX_NUMBER <= number < MAX_NUMBER:
        raise DataError(f"its label '{label}' is not an integer of 64 bits: pass another --target-key.")
    return number
