"""Saving through a mount of Syntropic137: what each command becomes at the service, to the request."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifactfs.store.catalog import Store
from tests.support.lab import Lab, Mounted, mounted, service_source
from tests.support.syntropic137_store import add_file, add_run, make_store

pytestmark = pytest.mark.fuse

GENERATIONS = {"A": "syntropic137-a", "B": "syntropic137", "C": "syntropic137-c"}
OUTPUT = "Research/exec-000000000001/plan/plan.md"
CREATED = {"POST artifacts": 1, "GET": 1}
SAVED = {"GET content": 2, "POST upload": 1}


class Served:
    """A mount of one generation, and the requests that commands become."""

    def __init__(self, lab: Lab, mount: Mounted, store: Store, *, is_old: bool) -> None:
        self.lab, self.mount, self.store, self.is_old = lab, mount, store, is_old

    def run(self, script: str) -> Counter[str]:
        """Run a command, wait until it is at the service, and return what that took, listings aside."""
        begin = len(self.lab.seen)
        self.mount.run("bash", "-e", "-c", script)
        self.mount.artifactfs("flush", str(self.mount.path))
        asked: Counter[str] = Counter()
        for one in self.lab.seen[begin:]:
            last = one.path.rsplit("/", 1)[1]
            route = last if last in {"artifacts", "content", "upload"} else ""
            if (one.method, last) not in {("GET", "artifacts"), ("GET", "sessions"), ("GET", "workflows")}:
                asked[f"{one.method} {route}".strip()] += 1
        return asked

    def held(self) -> dict[str, bytes]:
        """Return what the service has, by name; fails if a name is there twice."""
        rows = self.store.artifacts("wf-1")
        assert len({row.name for row in rows}) == len(rows)
        versions = {row.name: self.store.version(row.id, row.current) for row in rows}
        return {name: self.store.objects.read(one.sha256) for name, one in versions.items() if one and one.sha256}


@contextlib.contextmanager
def refused(number: int) -> Iterator[None]:
    """Expect this errno."""
    with pytest.raises(OSError, match=re.escape(f"[Errno {number}]")):
        yield


@pytest.fixture(params=list(GENERATIONS))
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    store = make_store(tmp_path / "served")
    add_file(store, "wf-1", "plan.md", b"# one\n", run=add_run(store, "wf-1", 1), phase="plan")
    with Lab(store) as lab:
        base = lab.bases()[GENERATIONS[request.param]]
        with mounted(tmp_path, {"syn": service_source("syntropic137", base)}) as mount:
            mount.run("find", ".")
            mount.run("cat", OUTPUT)
            yield Served(lab, mount, store, is_old=request.param == "A")
    store.close()


def test_one_save_is_one_upload(served):
    """New files, appends, saves by rename, and an agent's output; what was saved is read without a request."""
    assert served.run("echo hello > Research/note.md") == CREATED
    assert served.run("cat Research/note.md") == {}
    assert served.run("echo more >> Research/note.md") == SAVED
    assert served.run("sed -i s/hello/HELLO/ Research/note.md") == SAVED
    assert served.run(f"echo two >> {OUTPUT}; cat {OUTPUT}") == SAVED
    assert served.run("cp Research/note.md Research/copy.md; printf '' > Research/copy.md; cat Research/note.md >> "
                      "Research/copy.md") == CREATED  # fmt: skip
    assert (
        served.run("cp Research/note.md x; cat x > Research/note.md; rm x".replace(" x", f" '{served.mount.home}/x'"))
        == {}
    )
    noted = b"HELLO\nmore\n"
    assert served.held() == {"note.md": noted, "copy.md": noted, "plan.md": b"# one\ntwo\n"}


def test_names_and_removals(served):
    """PUT and DELETE where the server has them, and EPERM where it does not."""
    served.run("echo hello > Research/note.md")
    if served.is_old:
        note = served.mount.path / "Research/note.md"
        with refused(errno.EPERM):
            note.rename(note.with_name("b.md"))
        with refused(errno.EPERM):
            note.unlink()
        assert served.held() == {"note.md": b"hello\n", "plan.md": b"# one\n"}
        return
    asked = served.run("mv Research/note.md Research/b.md")
    assert asked - Counter({"DELETE": 1}) == {"PUT": 1}  # whether it can was asked before, in vain by design
    assert served.run("cat Research/b.md") == {}
    assert served.held() == {"b.md": b"hello\n", "plan.md": b"# one\n"}
    assert served.run("rm Research/b.md") == {"DELETE": 1}
    assert served.held() == {"plan.md": b"# one\n"}


def test_what_the_service_cannot_hold_is_refused_at_once(served):
    """What is no text with EINVAL, as it is written where that can be told, and at close; directories with EPERM."""
    begin = len(served.lab.seen)
    before = sorted(os.listdir(served.mount.path / "Research"))
    for data in (b"\xff\xfe", b"a\0b"):
        fd = os.open(served.mount.path / "Research/bin", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        with refused(errno.EINVAL):
            os.write(fd, data)
        with refused(errno.EINVAL):
            os.close(fd)
    fd = os.open(served.mount.path / "Research/bin", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.write(fd, "é".encode()[:1])
    with refused(errno.EINVAL):
        os.close(fd)
    shell = served.mount.run("sh", "-c", r"printf 'a\0b' > Research/bin", check=False)
    assert shell.returncode != 0
    assert sorted(os.listdir(served.mount.path / "Research")) == before
    plan = served.mount.path / OUTPUT
    with refused(errno.EINVAL), plan.open("r+b", buffering=0) as file:
        file.write(b"\0")
    assert plan.read_bytes() == b"# one\n"
    for place, number in (("x", errno.EROFS), ("Research/x", errno.EPERM), (f"{OUTPUT}/../x", errno.EROFS)):
        with refused(number):
            os.mkdir(os.path.normpath(served.mount.path / place))
    assert not [one for one in served.lab.seen[begin:] if one.method != "GET"]
