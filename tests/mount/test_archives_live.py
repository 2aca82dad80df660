"""Archives through a real mount while they are on their way: what is shown, what waits, what the end corrects."""

from __future__ import annotations

import errno
import io
import os
import random
import signal
import sys
import tarfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path

import pytest
import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.support.awkward import Served, vm0_of_archives
from tests.support.control import ask
from tests.support.lab import mounted, service_source

pytestmark = pytest.mark.fuse

KIB, MIB = 1024, 1024 * 1024
# The stream of the memory test, decompressed, in MB; 20000 is what the issue asks for, some minutes.
STREAM_MB = int(os.environ.get("ARTIFACTFS_TEST_STREAM_MB", "300"))
# The kernel asks at once, but the machine may be busy.
SOON_S = 30.0


class Slow:
    """Serves archives as they are generated, holding each back at a byte until it is let go."""

    def __init__(self, archives: dict[str, Callable[[], Iterable[bytes]]]) -> None:
        self.inner: ASGIApp = vm0_of_archives({name: name.encode for name in archives})
        self.archives = archives
        self.hold_at: dict[str, int] = {}
        self.let_go: dict[str, threading.Event] = {name: threading.Event() for name in archives}
        self.downloads: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope.get("path", "").startswith("/bucket/"):
            await self.inner(scope, receive, send)
            return
        body = bytearray()

        async def name_of(message: Message) -> None:
            body.extend(message.get("body", b""))

        await self.inner(scope, receive, name_of)
        name = body.decode()
        self.downloads.append(name)
        headers = [(b"content-type", b"application/gzip")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        sent = 0
        for chunk in self.archives[name]():
            if sent >= self.hold_at.get(name, 1 << 60) and not self.let_go[name].is_set():
                await trio.to_thread.run_sync(self.let_go[name].wait, SOON_S)
            sent += len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def packed(*files: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def pieces(data: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: (data[at : at + 16 * KIB] for at in range(0, len(data), 16 * KIB))


FIRST, SECOND, LAST = noise(1, 200 * KIB), noise(2, 300 * KIB), noise(3, 400 * KIB)
ORDINARY = packed(("first.txt", FIRST), ("deep/er/second.txt", SECOND), ("last.txt", LAST))
DAMAGED = bytearray(ORDINARY)
DAMAGED[-6] ^= 1
TWICE = packed(("name", FIRST), ("other", noise(9, 300 * KIB)), ("name", LAST))


def eventually(check: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON_S
    while not check():
        assert time.monotonic() < end
        time.sleep(0.05)  # noqa: TID251 - no event loop here


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def is_waiting(future: Future) -> bool:
    try:
        future.result(0.5)
    except NotYet:
        return True
    return False


def test_a_file_is_read_before_its_archive_has_arrived(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """Names and bytes that are here are served; the listing and an absent name wait for the end, and progress shows."""
    slow = Slow({"tree": pieces(ORDINARY)})
    slow.hold_at["tree"] = 560 * KIB
    with Served(slow) as served, mounted(tmp_path, {"vm0": service_source("vm0", served.url)}) as mount:
        here = mount.path / "artifacts/tree"
        try:
            assert (here / "first.txt").read_bytes() == FIRST
            assert (here / "deep/er/second.txt").read_bytes() == SECOND
            assert (here / "last.txt").stat().st_size == len(LAST)
            number = (here / "first.txt").stat().st_ino
            listing, absent = pool.submit(os.listdir, here), pool.submit((here / "absent").exists)
            last = pool.submit((here / "last.txt").read_bytes)
            assert is_waiting(listing)
            assert is_waiting(absent)
            assert is_waiting(last)
            assert "3 members" in (mount.path / ".artifactfs/progress").read_text()
            (row,) = mount.status()["archives"]
            assert row["files"] == 3
            assert 560 * KIB <= row["bytes"] < len(ORDINARY)
        finally:
            slow.let_go["tree"].set()
        assert sorted(listing.result(SOON_S)) == ["deep", "first.txt", "last.txt"]
        assert absent.result(SOON_S) is False
        assert last.result(SOON_S) == LAST
        assert (here / "first.txt").stat().st_ino == number
        assert (mount.path / ".artifactfs/progress").read_text() == ""
        assert slow.downloads == ["tree"]


def test_what_was_read_of_a_damaged_archive_is_an_error_at_its_end(tmp_path: Path) -> None:
    """Who has it open gets EIO from then on, also for pages the kernel had; looking again costs no download."""
    slow = Slow({"tree": pieces(bytes(DAMAGED))})
    slow.hold_at["tree"] = 560 * KIB
    with Served(slow) as served, mounted(tmp_path, {"vm0": service_source("vm0", served.url)}) as mount:
        here = mount.path / "artifacts/tree"
        with (here / "first.txt").open("rb", buffering=0) as file:
            try:
                assert file.read(len(FIRST)) == FIRST
            finally:
                slow.let_go["tree"].set()
            with pytest.raises(OSError, match="Input/output"):
                os.listdir(here)

            def fails() -> bool:
                try:
                    os.pread(file.fileno(), 4096, 0)
                except OSError as error:
                    return error.errno == errno.EIO
                return False

            eventually(fails)
        with pytest.raises(OSError, match="Input/output"):
            (here / "first.txt").read_bytes()
        assert slow.downloads == ["tree"]


def test_a_name_that_comes_twice_is_corrected(tmp_path: Path) -> None:
    """The first is served while it is all there is; then the name stands for the last, and who has it open keeps it."""
    slow = Slow({"tree": pieces(TWICE)})
    slow.hold_at["tree"] = 300 * KIB
    with Served(slow) as served, mounted(tmp_path, {"vm0": service_source("vm0", served.url)}) as mount:
        here = mount.path / "artifacts/tree"
        with (here / "name").open("rb") as file:
            try:
                assert file.read() == FIRST
                assert (here / "name").stat().st_size == len(FIRST)
            finally:
                slow.let_go["tree"].set()
            assert sorted(os.listdir(here)) == ["name", "other"]
            eventually(lambda: (here / "name").stat().st_size == len(LAST))
            assert (here / "name").read_bytes() == LAST
            file.seek(0)
            assert file.read() == FIRST


def test_a_mount_killed_while_an_archive_arrives(tmp_path: Path) -> None:
    """What it had written is taken for nothing but what it is: the next mount reads everything right."""
    slow = Slow({"tree": pieces(ORDINARY)})
    slow.hold_at["tree"] = 560 * KIB
    with Served(slow) as served:
        sources = {"vm0": service_source("vm0", served.url)}
        with mounted(tmp_path, sources) as mount:
            assert (mount.path / "artifacts/tree/first.txt").read_bytes() == FIRST
            os.kill(ask(mount, verb="status")["pid"], signal.SIGKILL)
        slow.let_go["tree"].set()
        with mounted(tmp_path, sources) as mount:
            here = mount.path / "artifacts/tree"
            assert sorted(os.listdir(here)) == ["deep", "first.txt", "last.txt"]
            assert (here / "first.txt").read_bytes() == FIRST
            assert (here / "deep/er/second.txt").read_bytes() == SECOND
            assert (here / "last.txt").read_bytes() == LAST


# -- a stream that is too large for memory ---------------------------------------------------------------------


def endless(megabytes: int) -> Iterator[bytes]:
    """Pack one small file and then larger ones, as many decompressed megabytes as are asked for."""
    packer = zlib.compressobj(1, wbits=31)
    block = noise(5, 12 * KIB) * (MIB // (12 * KIB) + 1)
    block = block[:MIB]

    def header(name: str, size: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.size = size
        return info.tobuf(tarfile.GNU_FORMAT)

    yield packer.compress(header("head.txt", 512) + b"x" * 512) + packer.flush(zlib.Z_SYNC_FLUSH)
    each = 100 if megabytes <= 2000 else 1000
    for number in range(0, megabytes, each):
        yield packer.compress(header(f"part-{number:06}.bin", each * MIB))
        for _ in range(each):
            yield packer.compress(block)
    yield packer.compress(bytes(1024)) + packer.flush()


def memory(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * KIB


@pytest.mark.timeout(120 + STREAM_MB // 4)
def test_an_archive_larger_than_memory(tmp_path: Path) -> None:
    """The head of the first file comes at once; at the end little more memory is taken than for a small one."""
    slow = Slow({"huge": lambda: endless(STREAM_MB)})
    slow.hold_at["huge"] = 1
    limits = '[limits]\nmax-output = "100GB"\n[cache]\nmax-size = "1GB"\nmin-free = "0"\n'
    with (
        Served(slow) as served,
        mounted(tmp_path, {"vm0": service_source("vm0", served.url)}, extra_config=limits) as mount,
    ):
        pid = ask(mount, verb="status")["pid"]
        assert (mount.path / "artifacts/huge/head.txt").read_bytes() == b"x" * 512
        base = memory(pid)
        slow.let_go["huge"].set()
        end = time.monotonic() + 60 + STREAM_MB * 0.2
        while ask(mount, verb="status")["archives"]:
            assert time.monotonic() < end
            time.sleep(0.5)  # noqa: TID251 - no event loop here
        assert len(os.listdir(mount.path / "artifacts/huge")) > STREAM_MB // 1000
        grown = memory(pid) - base
        sys.stdout.write(f"{STREAM_MB} MB passed, memory grew by {grown // MIB} MiB to {(base + grown) // MIB} MiB\n")
        # 32 MiB of hot blocks, what waits for the disk, and the pieces on their way.
        assert grown < 120 * MIB
        if STREAM_MB > 2000:
            return  # more than the cache holds: this server has no ranges, so it would be the whole stream again
        part = max(os.listdir(mount.path / "artifacts/huge"))
        with (mount.path / "artifacts/huge" / part).open("rb") as file:
            assert file.read(4096) == noise(5, 12 * KIB)[:4096]
