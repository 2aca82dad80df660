"""A mount begins with what an earlier one knew: at once, without a request, with the network cut or hanging."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from artifactfs.store.catalog import Store
from artifactfs.store.rows import StoredArtifact, TreeFile
from tests.support import demo_tree
from tests.support.lab import Lab, Mounted, mounted, service_source
from tests.support.log_guard import LogGuard
from tests.support.port import Port, swallowing
from tests.support.saving import killed, mount_again

pytestmark = pytest.mark.fuse

SERVICES = ("vm0", "syntropic137", "vlmrun")
METADATA = ".cache/artifactfs/metadata.db"
# Far below a connect timeout or a deadline, far above what a busy machine needs for a look at a local database.
SOON_S = 2.0


@pytest.fixture(autouse=True)
def _servers_may_complain(expected_logs: LogGuard) -> None:
    """Connections that the tests cut."""
    expected_logs("Error in ASGI Framework", logger="hypercorn", level=logging.ERROR)


@pytest.fixture
def port() -> Iterator[Port]:
    made = Port()
    yield made
    made.close()


def shown(mount: Mounted, top: str = ".") -> list[str]:
    """Return inode, size, time and path of everything below a place, as `find` and `ls -l` show it."""
    found = mount.run("find", top, "-printf", "%i %s %T@ %y %p -> %l\n").stdout.splitlines()
    return sorted(line for line in found if "/.artifactfs" not in line)


def links_and_ids(mount: Mounted, service: str, workflow: str) -> list[str]:
    """Return what is found through ids: the shelf, and of one artifact everything there is."""
    shelf = mount.path / service / workflow / ".artifacts"
    one = min(os.listdir(shelf))
    return [*sorted(os.listdir(shelf)), *shown(mount, f"{service}/{workflow}/.artifacts/{one}")]


IDS = (("vm0", "artifacts"), ("syntropic137", "product-docs"), ("vlmrun", "market-research"))


def shown_in(directory: Path) -> list[str]:
    return sorted(name for name in os.listdir(directory) if name != "by-id")


def everything(mount: Mounted) -> list[str]:
    return [*shown(mount), *(line for place in IDS for line in links_and_ids(mount, *place))]


def age(home: Path, seconds: float = 3600) -> None:
    """Let what was kept be older than any listing is believed; without a checksum, as rows of earlier versions are."""
    with contextlib.closing(sqlite3.connect(home / METADATA, timeout=10)) as db, db:
        db.execute("UPDATE listing SET fetched_at = fetched_at - ?, sum = NULL", (seconds,))
        db.execute("UPDATE versions SET fetched_at = fetched_at - ?, sum = NULL", (seconds,))


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)  # noqa: TID251 - no event loop here


def remote(lab: Lab, url: str = "") -> dict[str, dict[str, object]]:
    """Return the three services as sources, behind another address if one is given."""
    found = {name: source for name, source in demo_tree.sources(lab).items() if name in SERVICES}
    return {name: {**s, "url": str(s["url"]).replace(lab.url, url or lab.url)} for name, s in found.items()}


def test_a_restart_makes_no_request(tmp_path: Path, own_demo: Lab) -> None:
    """Names, inodes, sizes, times, links, ids and versions are the same, and nobody is asked until a listing is old."""
    with mounted(tmp_path, remote(own_demo), "--all") as mount:
        before = everything(mount)
    with mounted(tmp_path, remote(own_demo), "--all") as mount, own_demo.counted() as requests:
        assert everything(mount) == before
        # Nor for what is not there: a complete listing that was kept answers for it.
        for place in ("vm0/artifacts/no", "syntropic137/product-docs/no", "vlmrun/files/no"):
            assert not (mount.path / place).exists()
    assert not requests
    assert len(before) > 500


def test_after_a_kill_too(tmp_path: Path, own_demo: Lab) -> None:
    """Kill -9 a moment after a look, and what was seen is known."""
    with mounted(tmp_path, remote(own_demo), "--all") as mount:
        before = everything(mount)
        pid = mount.status()["pid"]
        time.sleep(1)  # noqa: TID251 - written behind; no event loop here
        os.kill(pid, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{pid}").exists(), "the mount should be dead")
        subprocess.run(["umount", "-l", str(mount.path)], check=True)
        mount.artifactfs("mount", str(mount.path), "--all", "--config", str(mount.home / "config.toml"))
        with own_demo.counted() as requests:
            assert everything(mount) == before
    assert not requests


def test_each_listing_that_is_old_costs_its_list_and_nothing_else(tmp_path: Path, own_demo: Lab) -> None:
    """A restart after an hour renews what is looked at with one request for each page; what is final costs none."""
    with mounted(tmp_path, remote(own_demo), "--all") as mount:
        before = shown(mount)
    age(tmp_path / "home")
    with mounted(tmp_path, remote(own_demo), "--all") as mount, own_demo.counted() as requests:
        assert shown(mount) == before
    paths = [request.path for request in requests]
    assert not [path for path in paths if path.endswith((".tar.gz", "/download", "/content"))]
    of = {service: [p for p in paths if p.startswith(f"/{service}")] for service in SERVICES}
    assert len(of["vm0"]) == 2  # artifacts, volumes
    # The runs are final and are not asked for again: executions, files, and the sessions for what no run is final of.
    assert 0 < len(of["vlmrun"]) <= 6
    assert len(paths) == len({(r.path, r.query) for r in requests})


def test_offline_everything_seen_is_there(tmp_path: Path, own_demo: Lab, port: Port) -> None:
    """With the network cut and everything old: names, sizes, ids, versions, cached bytes; others fail at once."""
    port.open(own_demo.url)
    sources = remote(own_demo, port.url)
    cached = ["syntropic137/product-docs/runbook.md", "vlmrun/site-audit/latest/write/audit.md"]
    with mounted(tmp_path, sources, "--all") as mount:
        # Sizes that no list says are known once somebody has looked.
        before, bytes_before = everything(mount), [(mount.path / path).read_bytes() for path in cached]
    port.close()
    age(tmp_path / "home")
    with mounted(tmp_path, sources, "--all") as mount:
        begin = time.monotonic()
        assert os.listdir(mount.path / "vm0/artifacts")
        assert time.monotonic() - begin < SOON_S
        begin = time.monotonic()
        assert everything(mount) == before
        assert [(mount.path / path).read_bytes() for path in cached] == bytes_before
        uncached = mount.path / "vlmrun/video-review/latest/watch/clip.mp4"
        asked = time.monotonic()
        with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)):
            uncached.read_bytes()
        assert time.monotonic() - asked < SOON_S
        assert time.monotonic() - begin < 10 * SOON_S
        listings = [row for source in mount.status()["sources"] for row in source["listings"]]
        assert any(row["stale"] and row["age_s"] > 3000 and row["stale_because"] for row in listings)
        why = mount.why("vm0/artifacts/site-report")
        assert why["listing_stale"]
        assert why["listing_age_s"] > 3000


def listed(mount: Mounted) -> list[str]:
    """Return the names of VM0's artifacts."""
    return sorted(set(os.listdir(mount.path / "artifacts")) - {"by-id"})


def add_tree(store: Store, name: str) -> StoredArtifact:
    """Make an artifact at the service, as an agent does."""
    home = next(iter(store.workflows()), None) or store.add_workflow("of trees")
    artifact = store.add_artifact(home.id, name, "tree")
    store.save_tree(artifact.id, [TreeFile("a.txt", store.objects.put(b"a"), 1)])
    return artifact


def test_it_recovers_by_itself(tmp_path: Path, lab: Lab) -> None:
    """What is made while the network is cut is shown soon after it is back, without anybody doing anything."""
    add_tree(lab.store, "before")
    with opened(lab) as first:
        sources = {"vm0": service_source("vm0", lab.bases()["vm0"].replace(lab.url, first.url))}
        with mounted(tmp_path, sources) as mount:
            assert listed(mount) == ["before"]
    age(tmp_path / "home")
    with mounted(tmp_path, sources) as mount:
        assert listed(mount) == ["before"]
        add_tree(lab.store, "made meanwhile")
        with opened(lab, first.address):
            until(lambda: "made meanwhile" in listed(mount), "it should recover")


@contextlib.contextmanager
def opened(lab: Lab, address: tuple[str, int] | None = None) -> Iterator[Port]:
    """Have a port that leads to the laboratory while the block runs."""
    made = Port(address)
    made.open(lab.url)
    try:
        yield made
    finally:
        made.close()


def test_a_network_that_hangs_is_not_waited_for(tmp_path: Path, own_demo: Lab, port: Port) -> None:
    """Nothing answers, not even with a refusal: the first answer comes from what was kept, and so do all others."""
    port.open(own_demo.url)
    sources = remote(own_demo, port.url)
    with mounted(tmp_path, sources, "--all") as mount:
        before = shown(mount)
    address = port.address
    port.close()
    age(tmp_path / "home")
    with swallowing(address), mounted(tmp_path, sources, "--all") as mount:
        for place in ("vm0/artifacts", "syntropic137", "vlmrun"):
            begin = time.monotonic()
            assert os.listdir(mount.path / place)
            assert time.monotonic() - begin < SOON_S
        assert shown(mount) == before
        assert any(row["stale"] for source in mount.status()["sources"] for row in source["listings"])
        begin = time.monotonic()
        with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)):
            (mount.path / "vlmrun/video-review/latest/watch/clip.mp4").read_bytes()
        assert time.monotonic() - begin < SOON_S + 1  # 1.7 s for a connection, and a busy machine


def test_who_looks_after_a_listing_is_old_sees_it_as_it_is_now(tmp_path: Path, lab: Lab) -> None:
    """A service in its usual state answers within the moment that a look waits; a slow one is not waited for."""
    sources = {"vm0": service_source("vm0", lab.bases()["vm0"])}
    add_tree(lab.store, "first")
    with mounted(tmp_path, sources) as mount:
        assert listed(mount) == ["first"]
    second = add_tree(lab.store, "second")
    age(tmp_path / "home")
    lab.fault(r"/v1/artifacts\?", delay_s=5)
    with mounted(tmp_path, sources) as mount:
        begin = time.monotonic()
        assert listed(mount) == ["first"]
        assert time.monotonic() - begin < SOON_S
        # The answer comes behind, and is shown to whoever looks next.
        assert any(row["revalidating"] for row in mount.status()["sources"][0]["listings"])
        until(lambda: listed(mount) == ["first", "second"], "it should be renewed")
    lab.heal()
    age(tmp_path / "home")
    lab.store.delete_artifact(second.id)
    with mounted(tmp_path, sources) as mount:
        # The very first look: a busy machine may take longer than the moment, but not for ever.
        until(lambda: listed(mount) == ["first"], "what is gone should not be shown")
        assert not (mount.path / "artifacts/second").exists()


def test_after_a_kill_of_a_mount_that_saved_a_slow_service_is_waited_for(tmp_path: Path, lab: Lab, port: Port) -> None:
    """What was kept may be from before a save: it is shown only if nobody can be asked, and then as old as it is."""
    port.open(lab.url)
    sources = {"mine": service_source("vlmrun", lab.bases()["vlmrun"].replace(lab.url, port.url))}
    with mounted(tmp_path, sources, "mine", names=("mine",)) as mount:
        for name in ("a.txt", "b.txt"):
            (mount.path / "files" / name).write_text(name)
    with mounted(tmp_path, sources, "mine", "--publish-delay", "600", names=("mine",)) as mount:
        files = mount.path / "files"
        top = shown_in(mount.path)
        assert shown_in(files) == ["a.txt", "b.txt"]
        time.sleep(0.5)  # noqa: TID251 - written behind; no event loop here
        (files / "c.txt").write_text("c")
        killed(mount)
        (gone,) = [one for one in lab.store.uploads() if one.filename == "a.txt"]
        lab.store.delete_upload(gone.id)
        lab.fault(r"/v1/files", delay_s=1)
        mount_again(mount)
        assert shown_in(files) == ["b.txt", "c.txt"]
        lab.heal()
        mount.artifactfs("flush", str(files))
        killed(mount)
        port.close()
        mount_again(mount)
        assert shown_in(mount.path) == top
        (row,) = mount.status()["sources"][0]["listings"]
        assert row["stale_because"]
        assert row["age_s"] is not None


def test_what_the_service_denies_is_not_shown(tmp_path: Path, own_demo: Lab) -> None:
    """A token that is not accepted any more: the service's own word counts, and no older listing stands in for it."""
    sources = {"vm0": service_source("vm0", own_demo.bases()["vm0"])}
    with mounted(tmp_path, sources) as mount:
        assert os.listdir(mount.path / "artifacts")
    age(tmp_path / "home")
    own_demo.fault(".*", status=401)
    with mounted(tmp_path, sources) as mount:
        for _ in range(2):
            with pytest.raises(PermissionError):
                os.listdir(mount.path / "artifacts")


def test_a_database_that_is_damaged_costs_requests(tmp_path: Path, own_demo: Lab) -> None:
    """Garbage in the parts of listings, or in the whole file, is asked for again; nothing false is shown."""
    sources = {"vm0": service_source("vm0", own_demo.bases()["vm0"])}
    with mounted(tmp_path, sources) as mount:
        names = sorted(os.listdir(mount.path / "artifacts"))
    for damage in (b"\x01garbage", None):
        if damage:
            with contextlib.closing(sqlite3.connect(tmp_path / "home" / METADATA)) as db, db:
                db.execute("UPDATE part SET data = ?", (damage,))
        else:
            (tmp_path / "home" / METADATA).write_bytes(b"no database at all" * 1000)
        with mounted(tmp_path, sources) as mount:
            assert sorted(os.listdir(mount.path / "artifacts")) == names


def test_what_is_below_a_version_needs_no_upcall(tmp_path: Path, own_demo: Lab) -> None:
    """Once looked at, every look-up and attribute below versions/vN is answered by the kernel: the mount is stopped."""
    with mounted(tmp_path, remote(own_demo), "--all") as mount:
        shelf = mount.path / "vm0/artifacts/.artifacts"
        paths = [
            os.path.join(where, name)
            for artifact in os.listdir(shelf)
            for where, folders, files in os.walk(shelf / artifact / "versions/v1")
            for name in (*folders, *files)
        ]
        sizes = {path: os.lstat(path).st_size for path in paths}
        pid = mount.status()["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            done = subprocess.run(
                ["xargs", "-0", "stat", "-c", "%s %n"], input="\0".join(paths), capture_output=True, text=True,
                timeout=60, check=True,
            )  # fmt: skip
        finally:
            os.kill(pid, signal.SIGCONT)
        assert sorted(done.stdout.splitlines()) == sorted(f"{size} {path}" for path, size in sizes.items())
        assert len(sizes) > 1000


def test_what_is_absent_needs_no_upcall_while_that_is_believed(tmp_path: Path, lab: Lab) -> None:
    """In a version for ever, in a complete listing for as long as it is believed; then what was made is found."""
    add_tree(lab.store, "first")
    sources = {"vm0": service_source("vm0", lab.bases()["vm0"])}
    with mounted(tmp_path, sources) as mount:
        absent = [mount.path / "artifacts" / name for name in ("second", "first/.git", ".gitignore")]
        assert listed(mount) == ["first"]
        assert not any(path.exists() for path in absent)
        pid = mount.status()["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            done = subprocess.run(["stat", *absent], capture_output=True, text=True, timeout=60, check=False)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert done.stderr.count("No such file") == len(absent)
    add_tree(lab.store, "second")
    age(tmp_path / "home", 50)  # of 60
    with mounted(tmp_path, sources) as mount:
        # Absent at first, unless the machine is so busy that the ten seconds are over.
        until(absent[0].exists, "what is made is found once the old listing is not believed any more")
        assert not absent[1].exists()


def test_a_relative_cache_is_the_callers(tmp_path: Path, own_demo: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of a mount begins in "/"; what a variable or the file names relatively is not there."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/token").write_text("vm0_live_laboratory")
    sources = {"vm0": {"type": "vm0", "url": own_demo.bases()["vm0"], "token-file": "token"}}
    with mounted(tmp_path, sources, environ={"ARTIFACTFS_CACHE_DIR": "cache"}) as mount:
        assert os.listdir(mount.path / "artifacts")
    assert (tmp_path / "here/cache/metadata.db").exists()
    shutil.rmtree(tmp_path / "here/cache")
