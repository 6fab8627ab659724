"""Files read whole, and replaced whole: at every moment the old one or the new one is there."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tinygrad_bn.errors import DataError


def read_whole(path: str | os.PathLike[str]) -> bytes:
    """The content of a file.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Generator[BinaryIO]:
    """A new file that takes the place of ``path`` if the block ends well, and vanishes if not.

    It lies in the same folder meanwhile, is synced before it is renamed, and the folder is synced
    after, so that no crash and no power cut leaves half a file or none.

    Raises
    ------
    DataError
        If it cannot be written. What was at ``path`` is untouched.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise DataError(f"expected a file to write, got {target}, which is a folder or a device")
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        sync_folder(target.parent)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # it is gone when all went well
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems that cannot
            raise
    finally:
        os.close(descriptor)
