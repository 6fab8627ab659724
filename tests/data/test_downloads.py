"""`fetch`: what arrives is whole and right, or nothing is there; what broke off is resumed."""

from __future__ import annotations

import gzip
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.data.conftest import Server, sha256
from tinygrad_bn.data.downloads import fetch
from tinygrad_bn.errors import ArgumentError, DataError


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "deep" / "x.gz"


def serve(server: Server, archive: bytes) -> tuple[str, str]:
    """The address of the archive on the server, and the checksum of what it holds."""
    server.files["/x.gz"] = archive
    return f"{server.url}/x.gz", sha256(gzip.decompress(archive))


def part(target: Path) -> Path:
    return target.with_name("x.gz.part")


def test_a_file_arrives(server: Server, archive: bytes, target: Path) -> None:
    url, checksum = serve(server, archive)
    fetch(url, target, checksum)
    assert target.read_bytes() == archive
    assert not part(target).exists()


def test_a_file_that_is_there_is_left_alone(server: Server, archive: bytes, target: Path) -> None:
    url, checksum = serve(server, archive)
    fetch(url, target, checksum)
    fetch(url, target, checksum)
    assert len(server.requests) == 1


def test_without_a_length(server: Server, archive: bytes, target: Path) -> None:
    server.lengths = False
    url, checksum = serve(server, archive)
    fetch(url, target, checksum)
    assert target.read_bytes() == archive


def test_another_compression_of_the_same_content_will_do(
    server: Server, archive: bytes, target: Path
) -> None:
    _, checksum = serve(server, archive)
    url, _ = serve(server, gzip.compress(gzip.decompress(archive), 1, mtime=5))
    fetch(url, target, checksum)
    assert sha256(gzip.decompress(target.read_bytes())) == checksum


class TestResuming:
    def test_a_broken_connection_is_taken_up_where_it_broke(
        self, server: Server, archive: bytes, target: Path
    ) -> None:
        server.cut = [70_000, 50_000]
        url, checksum = serve(server, archive)
        fetch(url, target, checksum)
        assert target.read_bytes() == archive
        assert [wanted for _, wanted in server.requests] == [None, "bytes=70000-", "bytes=120000-"]

    def test_the_next_call_goes_on_where_the_last_one_gave_up(
        self, server: Server, archive: bytes, target: Path
    ) -> None:
        server.cut = [1000, 1000, 1000]
        url, checksum = serve(server, archive)
        with pytest.raises(DataError, match=r"ended after 3000 of \d+ bytes; the next call"):
            fetch(url, target, checksum)
        assert not target.exists()
        assert part(target).read_bytes() == archive[:3000]
        fetch(url, target, checksum)
        assert target.read_bytes() == archive
        assert server.requests[-1] == ("/x.gz", "bytes=3000-")

    def test_a_server_that_ignores_ranges_sends_it_all_again(
        self, server: Server, archive: bytes, target: Path
    ) -> None:
        server.ranges = False
        server.cut = [70_000]
        url, checksum = serve(server, archive)
        fetch(url, target, checksum)
        assert target.read_bytes() == archive

    def test_a_part_that_lacks_nothing(self, server: Server, archive: bytes, target: Path) -> None:
        target.parent.mkdir(parents=True)
        part(target).write_bytes(archive)
        url, checksum = serve(server, archive)
        fetch(url, target, checksum)
        assert target.read_bytes() == archive

    @pytest.mark.parametrize("stale", [b"stale" * 100, b"stale" * 100_000])
    def test_a_part_of_something_else_is_thrown_away(
        self, server: Server, archive: bytes, target: Path, stale: bytes
    ) -> None:
        target.parent.mkdir(parents=True)
        part(target).write_bytes(stale)
        url, checksum = serve(server, archive)
        fetch(url, target, checksum)
        assert target.read_bytes() == archive

    def test_a_stale_part_on_a_bad_line(self, server: Server, archive: bytes, target: Path) -> None:
        """The last attempt completes a file that is wrong: it must not be moved into place."""
        target.parent.mkdir(parents=True)
        part(target).write_bytes(b"stale" * 100)
        server.cut = [1000, 1000]
        url, checksum = serve(server, archive)
        with pytest.raises(DataError, match="expected content with sha256"):
            fetch(url, target, checksum)
        assert not target.exists()
        fetch(url, target, checksum)
        assert target.read_bytes() == archive


class TestWrongFiles:
    @pytest.mark.parametrize("damage", ["flip", "cut", "other", "html"])
    def test_a_corrupted_download_is_not_kept(
        self, server: Server, archive: bytes, target: Path, damage: str
    ) -> None:
        _, checksum = serve(server, archive)
        flipped = bytearray(archive)
        flipped[len(archive) // 2] ^= 1
        served = {
            "flip": bytes(flipped),
            "cut": archive[:-9],
            "other": gzip.compress(b"other"),
            "html": b"<html>Please log in to the hotel's network</html>",
        }[damage]
        url, _ = f"{server.url}/x.gz", server.files.update({"/x.gz": served})
        with pytest.raises(DataError, match=f"expected content with sha256 {checksum}"):
            fetch(url, target, checksum)
        assert not target.exists()
        assert not part(target).exists()

    @pytest.mark.parametrize("status", [403, 404, 500, 503])
    def test_a_refusal_is_reported(
        self, server: Server, archive: bytes, target: Path, status: int
    ) -> None:
        server.status = status
        url, checksum = serve(server, archive)
        with pytest.raises(DataError, match=f"HTTP {status}"):
            fetch(url, target, checksum)
        assert not target.exists()

    def test_nobody_answers(self, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("no_proxy", "*")
        with pytest.raises(DataError, match=r"cannot download http://127\.0\.0\.1:9/x\.gz"):
            fetch("http://127.0.0.1:9/x.gz", target, "0" * 64)

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "host/x", ""])
    def test_only_the_web_is_a_mirror(self, target: Path, url: str) -> None:
        with pytest.raises(ArgumentError, match="expected a mirror at http"):
            fetch(url, target, "0" * 64)


class TestDisk:
    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_a_full_disk(
        self,
        server: Server,
        archive: bytes,
        target: Path,
        monkeypatch: pytest.MonkeyPatch,
        call: str,
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        url, checksum = serve(server, archive)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            with pytest.raises(DataError, match=r"cannot write .*No space left"):
                fetch(url, target, checksum)
        assert not target.exists()
        fetch(url, target, checksum)
        assert target.read_bytes() == archive

    def test_a_disk_that_is_full_in_the_middle(
        self, server: Server, archive: bytes, target: Path
    ) -> None:
        """A real limit on the size of files, so that real writes fail part of the way."""
        resource = pytest.importorskip("resource")
        signal = pytest.importorskip("signal")
        url, checksum = serve(server, archive)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(DataError, match="cannot write"):
                fetch(url, target, checksum)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert not target.exists()
        fetch(url, target, checksum)
        assert target.read_bytes() == archive

    def test_a_file_where_the_cache_should_be(
        self, server: Server, archive: bytes, tmp_path: Path
    ) -> None:
        (tmp_path / "cache").touch()
        url, checksum = serve(server, archive)
        with pytest.raises(DataError, match=r"cannot write .* XDG_CACHE_HOME"):
            fetch(url, tmp_path / "cache" / "x.gz", checksum)

    @pytest.mark.skipif(
        not Path("/sys").is_dir(), reason="needs a folder that root cannot write to"
    )
    def test_a_read_only_cache(self, server: Server, archive: bytes) -> None:
        url, checksum = serve(server, archive)
        with pytest.raises(
            DataError, match=r"cannot write /sys/x\.gz: (Permission|Operation|Read-only)"
        ):
            fetch(url, Path("/sys/x.gz"), checksum)
        assert not server.requests


def test_of_several_at_once_one_downloads(server: Server, archive: bytes, target: Path) -> None:
    url, checksum = serve(server, archive)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            fetch(url, target, checksum)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(server.requests) == 1
    assert target.read_bytes() == archive


class TestProgress:
    def test_a_bar_where_rich_is_installed(
        self, server: Server, archive: bytes, target: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pytest.importorskip("rich")
        url, checksum = serve(server, archive)
        fetch(url, target, checksum)
        out, err = capsys.readouterr()
        assert out == ""
        assert "x.gz" in err

    def test_one_line_elsewhere(
        self,
        server: Server,
        archive: bytes,
        target: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        modules: Any = sys.modules
        for name in [name for name in modules if name.partition(".")[0] == "rich"]:
            monkeypatch.delitem(modules, name)
        monkeypatch.setitem(modules, "rich", None)
        url, checksum = serve(server, archive)
        fetch(url, target, checksum)
        assert capsys.readouterr() == ("", f"downloading {url}, 0.2 MB\n")
