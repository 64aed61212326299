"""Zip archives that torch.save wrote: their directory is looked at first, then every checksum is compared."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from daukit.errors import CheckpointError, DaukitError, in_words_of_caller

_HEADER = 30  # bytes before each member, besides its name
_BLOCK = 1 << 20


def is_archive(file: BinaryIO) -> bool:
    """Tell a zip archive, or what was one before it was damaged."""
    file.seek(0)
    return file.read(4) == b"PK\x03\x04"


def check_archive(file: BinaryIO, path: Path) -> None:
    """Raise ``CheckpointError`` unless the archive is what torch.save writes, to the bit.

    Its members must lie as they are, side by side: the directory at the end tells that before any of them is opened.
    torch itself compares no checksum.
    """
    with _opened(file, path) as archive:
        members = archive.infolist()
        _check_directory(members, os.fstat(file.fileno()).st_size, path)
        # torch.serialization.set_crc32_options(False) leaves them all 0.
        has_checksums = any(member.CRC for member in members)
        for member in members:
            with archive.open(member) as stream:  # which compares the member's name with the directory's
                while has_checksums and stream.read(_BLOCK):
                    pass


def _check_directory(members: list[zipfile.ZipInfo], size: int, path: Path) -> None:
    """Raise ``CheckpointError`` unless the members could be those of torch.save in a file of ``size`` bytes."""
    names = {member.filename.partition("/")[2] for member in members}
    if "constants.pkl" in names:
        raise CheckpointError(
            f"{path}: is a TorchScript program, whose code daukit does not run; save model.state_dict() by torch.save"
        )
    if "archive_format" in names:
        raise CheckpointError(
            f"{path}: is an exported program, not a state dict; save model.state_dict() by torch.save"
        )
    if any(member.filename.endswith(".npy") for member in members):
        how = in_words_of_caller("daukit.importers.import_checkpoint()", "daukit convert")
        raise CheckpointError(
            f"{path}: is an archive of NumPy arrays, not a state dict; {how} reads those of DAU layers"
        )
    if "data.pkl" not in names:
        raise CheckpointError(f"{path}: is a zip archive, but none that torch.save wrote (it has no data.pkl)")
    packed = any(m.compress_type != zipfile.ZIP_STORED or m.compress_size != m.file_size for m in members)
    stated = sum(member.file_size for member in members)
    if packed or stated > size:
        raise CheckpointError(
            f"{path}: its members are compressed or state more than they hold ({stated:,} bytes in a file of "
            f"{size:,}), as torch.save never writes them; save it again by torch.save"
        )
    check_apart(members, path)


def check_apart(members: Iterable[zipfile.ZipInfo], path: Path) -> None:
    """Raise ``CheckpointError`` if two members of an archive, of whatever format, share bytes of it."""
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end:
            raise CheckpointError(f"{path}: its members overlap at {member.filename!r}; the file is damaged")
        end = member.header_offset + _HEADER + len(member.filename) + member.compress_size


@contextmanager
def _opened(file: BinaryIO, path: Path) -> Iterator[zipfile.ZipFile]:
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except DaukitError:
        raise
    # Whatever bytes there are: zipfile itself lets struct.error, ValueError, OSError and others out, by version.
    except Exception as error:
        raise CheckpointError(
            f"{path}: not a complete torch file ({error}); was it cut short, or damaged? copy it again"
        ) from None
