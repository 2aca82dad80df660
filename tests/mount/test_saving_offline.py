"""Saves while the service cannot be reached, or fails: they wait here, are shown, and get there in order."""

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from artifactfs.store.catalog import Store
from tests.support.lab import Lab, Mounted, mounted, service_source
from tests.support.saving import drafts, flushed, killed, listed, local_mount
from tests.support.syntropic137_store import make_store

pytestmark = pytest.mark.fuse

QUICK = "[mount]\npublish-delay = 0.2\n"
SERVICE = "/syntropic137/"


@dataclass
class Served:
    """A served store, and a mount of its Syntropic137 dialect."""

    lab: Lab
    store: Store
    mount: Mounted

    @property
    def folder(self) -> Path:
        return self.mount.path / "Research"

    def held(self) -> dict[str, bytes]:
        """Return what the service has, by title."""
        found = {}
        for artifact in self.store.artifacts():
            (version,) = self.store.versions(artifact.id)[-1:]
            found[artifact.name] = self.store.objects.read(version.sha256 or "")
        return found


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    store = make_store(tmp_path / "served")
    with Lab(store) as lab:
        source = service_source("syntropic137", lab.bases()["syntropic137"])
        with mounted(tmp_path, {"syn": source}, extra_config=QUICK) as mount:
            mount.run("find", ".")
            yield Served(lab, store, mount)
    store.close()


def pending(mount: Mounted) -> dict[str, str]:
    """Return what waits: states by path."""
    return {row["path"]: row["state"] for row in mount.status()["pending"]}


def test_a_service_that_fails_costs_no_save(served: Served):
    """500 to everything: saves are shown as written and as waiting, with the reason; healed, they get there once."""
    (served.folder / "warm.md").write_text("before\n")
    flushed(served.folder)
    served.lab.fault(SERVICE, status=500)
    for number in range(5):
        (served.folder / f"{number}.md").write_text(f"text {number}\n")
    (served.folder / "warm.md").write_text("after\n")
    done = served.mount.artifactfs("flush", str(served.mount.path), check=False)
    assert done.returncode == 1
    assert "0.md" in done.stderr
    assert set(pending(served.mount)) == {f"Research/{n}.md" for n in range(5)} | {"Research/warm.md"}
    assert all(row["error"] for row in served.mount.status()["pending"][:1])
    assert [(served.folder / f"{n}.md").read_text() for n in range(5)] == [f"text {n}\n" for n in range(5)]
    assert (served.folder / "warm.md").read_text() == "after\n"
    served.lab.heal()
    flushed(served.folder)
    expected = {f"{n}.md": f"text {n}\n".encode() for n in range(5)} | {"warm.md": b"after\n"}
    assert served.held() == expected
    assert pending(served.mount) == {}
    assert drafts(served.mount) == []


def test_after_an_outage_saves_go_in_order(tmp_path: Path, served: Served):
    """Saved while nothing answers, over a kill of the mount too: published one by one, oldest first, by itself."""
    served.lab.fault(SERVICE, status=503)
    sizes = [3, 200, 40, 1000, 7, 90]
    for number, size in enumerate(sizes):
        (served.folder / f"f{number}.md").write_text("x" * size)
    killed(served.mount)
    again = ["mount", str(served.mount.path), "--config", str(served.mount.home / "config.toml")]
    served.mount.artifactfs(*again)
    assert list(pending(served.mount)) == [f"Research/f{number}.md" for number in range(len(sizes))]
    begin = len(served.lab.seen)
    served.lab.heal()
    flushed(served.mount.path)
    posts = [s for s in served.lab.seen[begin:] if s.method == "POST" and s.path.endswith("/artifacts")]
    lengths = [int(s.headers["content-length"]) for s in posts]
    least = min(length - size for length, size in zip(lengths, sizes, strict=True))
    assert [length - least for length in lengths] == sizes
    assert set(served.held()) == {f"f{number}.md" for number in range(len(sizes))}


def test_refused_saves_are_kept_and_told_once(served: Served):
    """A 413 of the gateway: the next fsync of the file is EFBIG, the bytes stay, and another try is one's own word."""
    served.lab.fault(r"/artifacts\?", method="POST", status=413, body=b"<html>too large</html>")
    path = served.folder / "big.md"
    path.write_text("text\n")
    assert served.mount.artifactfs("flush", str(served.mount.path), check=False).returncode == 1
    assert pending(served.mount) == {"Research/big.md": "failed"}
    fd = os.open(path, os.O_RDWR)
    with pytest.raises(OSError, match="File too large") as caught:
        os.fsync(fd)
    assert caught.value.errno == errno.EFBIG
    os.fsync(fd)
    os.close(fd)
    assert path.read_text() == "text\n"
    why = served.mount.why("Research/big.md")
    assert "413" in json.dumps(why)
    served.lab.heal()
    flushed(served.folder)
    assert served.held() == {"big.md": b"text\n"}


def test_write_through_tells_the_services_verdict(tmp_path: Path):
    """With `write-through` a save that the service has not got is an error at close, kept all the same."""
    store = make_store(tmp_path / "served")
    with Lab(store) as lab:
        source = service_source("syntropic137", lab.bases()["syntropic137"])
        extra = "[mount]\nwrite-through = true\ntimeout = 8.0\n"
        with mounted(tmp_path, {"syn": source}, extra_config=extra) as mount:
            folder = mount.path / "Research"
            mount.run("find", ".")
            with (folder / "a.md").open("w") as file:
                file.write("one\n")
                file.flush()
                os.fsync(file.fileno())
                assert [a.name for a in store.artifacts()] == ["a.md"]
                file.write("two\n")
            served = Served(lab, store, mount)
            assert served.held() == {"a.md": b"one\ntwo\n"}
            lab.fault(SERVICE, status=500)
            with pytest.raises(OSError, match="Input/output error"):
                (folder / "b.md").write_text("text\n")
            assert (folder / "b.md").read_text() == "text\n"
            lab.heal()
            flushed(folder)
            assert served.held()["b.md"] == b"text\n"
    store.close()


def test_the_journal_has_a_limit(tmp_path: Path):
    """Beyond `journal.max-size` a write is ENOSPC before anything is acknowledged; what was saved goes its way."""
    with local_mount(tmp_path, extra_config='[journal]\nmax-size = "1MiB"\n') as mount:
        folder = mount.path / "w"
        folder.mkdir()
        (folder / "small").write_bytes(b"s" * 1000)
        with pytest.raises(OSError, match="No space") as caught:
            (folder / "large").write_bytes(b"l" * (2 << 20))
        assert caught.value.errno == errno.ENOSPC
        assert (folder / "small").read_bytes() == b"s" * 1000
        flushed(folder)
        (folder / "other").write_bytes(b"o" * (900 << 10))
        flushed(folder)
        (folder / "third").write_bytes(b"t" * (900 << 10))
        assert listed(folder) == {"small", "other", "third"}
