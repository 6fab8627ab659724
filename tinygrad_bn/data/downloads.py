"""Fetching a public file once: resumed where it broke off, checked, and moved into place whole."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinygrad_bn.errors import ArgumentError, DataError
from tinygrad_bn.files import sync_folder

ATTEMPTS = 3
TIMEOUT = 30.0
"""Seconds without a byte before a connection counts as broken."""
CHUNK = 1 << 16
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416  # of HTTP


def fetch(url: str, target: Path, sha256: str) -> None:
    """Download a gzip file to ``target``, unless it is there.

    What has come of it lies in ``target`` + ``.part`` meanwhile; when the connection breaks, the
    next attempt, or the next call, goes on from there. One process downloads; others wait for it.

    Parameters
    ----------
    sha256 : of what the gzip file holds, because mirrors compress it each in their own way.

    Raises
    ------
    DataError
        If it cannot be had, is not what it should be, or cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise ArgumentError(f"expected a mirror at http:// or https://, got {url!r}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(target.name + ".lock")):
            if not target.exists():
                download(url, target, sha256)
    except DataError:
        raise
    except OSError as error:
        raise DataError(
            f"cannot write {target}: {error.strerror or error}; XDG_CACHE_HOME names another cache"
        ) from error


def download(url: str, target: Path, sha256: str) -> None:
    part = target.with_name(target.name + ".part")
    failure = ""
    for _ in range(ATTEMPTS):
        resumed = part.exists()
        try:
            receive(url, part)
        except ConnectionError as error:
            failure = f"cannot download {url}: {error}; the next call goes on where it broke off"
            continue
        found = content_sha256(part)
        if found == sha256:
            os.replace(part, target)
            sync_folder(target.parent)
            return
        part.unlink()  # nothing in it can be trusted
        failure = f"expected content with sha256 {sha256} from {url}, got {found}; nothing is kept"
        if not resumed:
            break
    raise DataError(failure)


def receive(url: str, part: Path) -> None:
    """Append to ``part`` what it lacks.

    Raises
    ------
    ConnectionError
        If the connection broke before the end.
    DataError
        If the server refuses.
    """
    from http.client import HTTPException  # these three take 30 ms to import
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "tinygrad-bn", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == RANGE_NOT_SATISFIABLE and have:
            return  # there is no more; the checksum tells whether it is right
        raise DataError(f"cannot download {url}: HTTP {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise ConnectionError(str(getattr(error, "reason", error))) from error
    with response:
        if not continues(response, have):
            have = 0  # the server sends everything again
        total = response.headers.get("Content-Length")
        size = have + int(total) if total else None
        with open(part, "ab" if have else "wb") as file, progress(url, size, have) as advance:
            for chunk in chunks(response, size, have):
                file.write(chunk)
                advance(len(chunk))
            file.flush()
            os.fsync(file.fileno())


def continues(response: Any, have: int) -> bool:
    """Whether the answer begins where the part that we have ends."""
    span = response.headers.get("Content-Range", "")
    partial: bool = response.status == PARTIAL_CONTENT
    return partial and span.startswith(f"bytes {have}-")


def chunks(response: Any, size: int | None, have: int) -> Iterator[bytes]:
    from http.client import HTTPException

    try:
        while chunk := response.read(CHUNK):
            have += len(chunk)
            yield chunk
    except (OSError, HTTPException) as error:
        raise ConnectionError(f"{error} after {have} bytes") from error
    if size is not None and have < size:
        raise ConnectionError(f"the connection ended after {have} of {size} bytes")


@contextmanager
def progress(url: str, size: int | None, have: int) -> Generator[Callable[[int], None]]:
    """A progress bar on stderr, and what advances it; one line where rich is not installed."""
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TransferSpeedColumn,
        )
    except ModuleNotFoundError:
        known = "" if size is None else f", {size / 1e6:.1f} MB"
        print(f"downloading {url}{known}", file=sys.stderr)
        yield lambda count: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(url.rpartition("/")[2], total=size, completed=have)
        yield lambda count: bar.advance(task, count)


def content_sha256(path: Path) -> str:
    """The checksum of what a gzip file holds, or a few words on why it holds nothing."""
    try:
        with gzip.open(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        return f"no whole gzip file ({error})"


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Let no other process in at the same time."""
    import fcntl

    with open(path, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
