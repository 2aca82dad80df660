"""Services that are not there, or that never answer: what else goes on meanwhile, how it ends, how it is mended."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifactfs.store.catalog import Store
from tests.support.control import ask
from tests.support.lab import Lab, mounted, service_source
from tests.support.log_guard import LogGuard
from tests.support.port import Port

pytestmark = pytest.mark.fuse


@pytest.fixture(autouse=True)
def _servers_may_complain(expected_logs: LogGuard) -> None:
    """The tests' own servers break their answers on purpose, and say so."""
    expected_logs("Error in ASGI Framework", logger="hypercorn", level=logging.ERROR)


# "At once", "responsive": far below the deadline of 30 s, far above what a busy machine needs.
SOON_S = 10.0
SERVICES = ("vm0", "syntropic137", "vlmrun")


@pytest.fixture
def lab(demo_lab: Lab) -> Iterator[Lab]:
    """The demo's store on a server of the test's own, to be disturbed."""
    with Lab(Store(demo_lab.store.root)) as made:
        yield made


def number_of(call: object, *arguments: object) -> int:
    """Return the errno of a call, 0 if it succeeds."""
    try:
        call(*arguments)  # type: ignore[operator]  # rows of a table
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.fixture
def port() -> Iterator[Port]:
    made = Port()
    yield made
    made.close()


def test_a_service_that_is_not_there(tmp_path: Path, lab: Lab, port: Port) -> None:
    """The mount starts; every call is EHOSTUNREACH at once, with few requests; what comes back is there again."""
    name = {"type": "vlmrun", "url": "http://artifactfs.invalid/v1", "token-env": "LAB_TOKEN"}
    sources = {s: service_source(s, lab.bases()[s].replace(lab.url, port.url)) for s in SERVICES}
    with mounted(tmp_path, {**sources, "nameless": name}, "--all") as mount:
        assert sorted(os.listdir(mount.path)) == sorted([*sources, "nameless"])
        places = ["vm0/artifacts", "syntropic137", "vlmrun", "nameless"]
        begin = time.monotonic()
        for place in places:
            for call, path in ((os.listdir, place), (os.stat, f"{place}/x"), (open, f"{place}/x")) * 5:
                assert errno.errorcode[number_of(call, mount.path / path)] == "EHOSTUNREACH"
        assert time.monotonic() - begin < SOON_S
        status = {source["name"]: source for source in mount.status()["sources"]}
        for source in (*SERVICES, "nameless"):
            assert "reached" in status[source]["state"] or "no connection" in status[source]["state"]
            # A breaker: of 30 requests that 15 calls would make, with one try more each, hardly any.
            assert status[source]["counters"]["requests"] <= 20
        why = mount.artifactfs("why", str(mount.path / "vm0/artifacts/x"), check=False).stdout
        assert "no connection" in why
        port.open(lab.url)
        deadline = time.monotonic() + 30
        while any(number_of(os.listdir, mount.path / place) for place in places[:3]):
            assert time.monotonic() < deadline
            time.sleep(0.1)  # noqa: TID251 - no event loop here
        assert "site-report" in os.listdir(mount.path / "vm0/artifacts")


def test_a_host_that_swallows_connections(tmp_path: Path, lab: Lab) -> None:
    """Connecting takes its five seconds once; then calls fail at once, and other sources are not touched."""
    with socket.socket() as deaf, contextlib.ExitStack() as stack:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        # A full backlog: what more comes is dropped without a word.
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        sources = {
            "deaf": service_source("vm0", f"http://127.0.0.1:{deaf.getsockname()[1]}"),
            "vm0": service_source("vm0", lab.bases()["vm0"]),
        }
        with mounted(tmp_path, sources, "--all") as mount:
            first = threading.Thread(target=number_of, args=(os.listdir, mount.path / "deaf/artifacts"))
            first.start()
            begin = time.monotonic()
            assert os.listdir(mount.path / "vm0/artifacts")
            assert time.monotonic() - begin < SOON_S
            first.join()
            begin = time.monotonic()
            numbers = [number_of(os.listdir, mount.path / "deaf/volumes") for _ in range(10)]
            assert {errno.errorcode[number] for number in numbers} == {"EHOSTUNREACH"}
            assert time.monotonic() - begin < SOON_S


STALLS = {
    "vm0": r"/vm0/v1/artifacts\?",
    "syntropic137": r"^/syntropic137/.*/artifacts\?.*workflow_id",
    "vlmrun": r"/v1/artifacts/list",
}
RUN = "market-research/06f65b43-371e-4d77-aa24-4ed1c9b66417"
PLACES = {"vm0": "artifacts", "syntropic137": "field-notes ✎", "vlmrun": RUN}


def test_who_waits_and_who_does_not(tmp_path: Path, demo_lab: Lab, lab: Lab) -> None:
    """Three sources never answer: all others, their own known directories, status and why do; and umount works."""
    sources = {f"deaf {s}": service_source(s, lab.bases()[s]) for s in SERVICES}
    sources |= {s: service_source(s, demo_lab.bases()[s]) for s in SERVICES}
    sources["local"] = {"type": "local", "path": str(tmp_path / "store")}
    named = {json.dumps(name): source for name, source in sources.items()}
    with mounted(tmp_path, named, "--all") as mount, contextlib.ExitStack() as stack:
        for service in SERVICES:
            os.listdir(mount.path / f"deaf {service}")
            lab.fault(STALLS[service], delay_s=120)
        stalled = [mount.path / f"deaf {service}" / PLACES[service] for service in SERVICES]
        programs = [stack.enter_context(waiting("ls", str(path))) for path in stalled]
        begin = time.monotonic()
        for service in SERVICES:
            assert os.listdir(mount.path / service / PLACES[service])
            assert os.listdir(mount.path / f"deaf {service}")
        (mount.path / "local/notes").mkdir()
        (mount.path / "local/notes/a.md").write_text("written meanwhile")
        assert len(mount.status()["sources"]) == len(sources)
        why = ask(mount, verb="why", path=f"deaf vm0/{PLACES['vm0']}/x")
        assert why["exists"] is None
        assert "answer" in why["message"]
        assert time.monotonic() - begin < 2 * SOON_S
        assert [program.poll() for program in programs] == [None] * 3, "they should still wait"
        # They cannot be killed while they wait, and keep the mount busy; umount gives the waits up for them.
        begin = time.monotonic()
        mount.artifactfs("umount", str(mount.path))
        assert time.monotonic() - begin < SOON_S
        mount.artifactfs("mount", str(mount.path), "--all", "--config", str(mount.home / "config.toml"))


@contextlib.contextmanager
def waiting(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that waits for the mount while the block runs; it has ended when the block has."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
        time.sleep(1.2)  # noqa: TID251 - into the kernel, for longer than is no wait; no event loop here
        yield program
        program.wait(60)


def test_sigterm_ends_a_mount_in_which_programs_wait(tmp_path: Path, lab: Lab) -> None:
    """Within seconds, however long their requests would still take."""
    lab.fault(STALLS["vm0"], delay_s=120)
    with mounted(tmp_path, {"vm0": service_source("vm0", lab.bases()["vm0"])}) as mount:
        pid = mount.status()["pid"]
        with waiting("ls", str(mount.path / "artifacts")):
            begin = time.monotonic()
            os.kill(pid, signal.SIGTERM)
            while Path(f"/proc/{pid}").exists():
                assert time.monotonic() - begin < SOON_S
                time.sleep(0.05)  # noqa: TID251 - no event loop here
        assert not os.path.ismount(mount.path)
        mount.artifactfs("mount", str(mount.path), "--config", str(mount.home / "config.toml"))


def test_a_transient_failure_shortens_nothing(tmp_path: Path, lab: Lab) -> None:
    """Neither the first page alone, nor an empty directory, nor ENOENT: the failure, and then the whole."""
    sources = {s: service_source(s, lab.bases()[s]) for s in ("vm0", "syntropic137")}
    whole = lab.store
    with mounted(tmp_path, sources, "--all", extra_config="[mount]\ntimeout = 3\n") as mount:
        wanted = {row.name for row in whole.workflows()}
        lab.fault(r"/workflows\?", status=500)
        assert number_of(os.listdir, mount.path / "syntropic137") == errno.EIO
        assert number_of(os.stat, mount.path / "syntropic137/market-research") == errno.EIO
        lab.heal()
        assert wanted >= {"market-research"}
        assert {"market-research", "site-audit"} <= set(os.listdir(mount.path / "syntropic137"))


def test_offline_what_was_read_is_there(tmp_path: Path, lab: Lab, port: Port) -> None:
    """A mount that starts offline shows cached bytes of what it can name; nothing is invented meanwhile."""
    url = lab.bases()["vm0"].replace(lab.url, port.url)
    port.open(lab.url)
    sources = {"vm0": service_source("vm0", url)}
    with mounted(tmp_path, sources) as mount:
        notes = mount.path / "artifacts/site-report/notes.md"
        first = notes.read_bytes()
        port.close()
        lab.fault(".*", status=503)
        assert notes.read_bytes() == first
        shutil.copytree(mount.path / "artifacts/site-report", tmp_path / "copy")
        assert (tmp_path / "copy/notes.md").read_bytes() == first
        assert json.dumps(mount.status())
