"""A web server on this machine that can be told to misbehave, and the files it has."""

from __future__ import annotations

import gzip
import hashlib
import re
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    """An array as an IDX file."""
    code = CODES[array.dtype.str[1:]]
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Server:
    """What the server has and how it behaves.

    Attributes
    ----------
    files : content by path.
    cut : the connection ends after so many bytes of an answer, as often as listed.
    ranges : whether it knows about Range.
    lengths : whether it says how long an answer is.
    status : what it answers instead, unless 200.
    requests : the Range headers it got, by path, in order.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    ranges: bool = True
    lengths: bool = True
    status: int = 200
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            server.requests.append((self.path, wanted))
            content = server.files.get(self.path)
            if content is None or server.status != 200:
                self.send_error(404 if content is None else server.status)
                return
            start = 0
            if wanted and server.ranges:
                start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            else:
                self.send_response(200)
            if server.lengths:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            body = content[start:]
            self.wfile.write(body[: server.cut.pop(0)] if server.cut else body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def archive() -> bytes:
    """A gzip file of some 100 kB, that is of several chunks."""
    return gzip.compress(np.random.default_rng(0).bytes(150_000), mtime=0)
