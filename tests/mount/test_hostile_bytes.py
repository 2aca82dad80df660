"""Archives written by hand to do harm, through a real mount: what is shown, what is not, and who says why."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.awkward import Served, mounted_archives, vm0_of_archives
from tests.support.control import ask
from tests.support.lab import Mounted, mounted, service_source
from tests.support.tar_bytes import DIRECTORY, SENT, file, of, pax
from tests.support.tar_bytes import before as saying

pytestmark = pytest.mark.fuse

# "Slow: seconds, not minutes", on a machine that does other things.
SLOW_S = 30.0


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """All of them as artifacts of one source at the root."""
    made = {name: lambda sent=sent: sent.data for name, sent in SENT.items()}
    with mounted_archives(tmp_path_factory.mktemp("bytes"), made) as mount:
        yield mount


def seen(root: Path) -> Mapping[str, bytes]:
    """Return everything below a place as ``Sent.shows`` has it."""
    found: dict[str, bytes] = {}
    todo = [b""]
    while todo:
        here = todo.pop()
        for name in os.listdir(os.path.join(os.fsencode(root), here)):
            path = os.path.join(here, name)
            where = os.path.join(os.fsencode(root), path)
            if os.path.islink(where):
                found[path.decode()] = b"-> " + target_of(where)
            elif os.path.isdir(where):
                found[path.decode()] = DIRECTORY
                todo.append(path)
            else:
                found[path.decode()] = Path(os.fsdecode(where)).read_bytes()
    return found


def target_of(where: bytes) -> bytes:
    try:
        target = os.readlink(where)
    except OSError as error:
        return f"!{errno.errorcode[error.errno or 0]}".encode()
    assert len(target) == os.lstat(where).st_size
    return target


@pytest.mark.parametrize("name", SENT)
def test_what_a_user_sees(mount: Mounted, name: str) -> None:
    """Exactly what stands in the table, in time; or one error, wherever one looks."""
    sent, root = SENT[name], mount.path / "artifacts" / name
    begin = time.monotonic()
    if sent.errno:
        for look in (os.listdir, lambda place: os.stat(place / "good.txt"), lambda place: (place / "x").read_bytes()):
            with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at
                look(root)
            assert errno.errorcode[caught.value.errno or 0] == sent.errno
        why = mount.why(f"artifacts/{name}/good.txt")
        assert why["exists"] is None
        assert sent.errno != "EFBIG" or "limits.max-" in why["message"]
    else:
        assert seen(root) == sent.shows
    assert time.monotonic() - begin < SLOW_S
    for hidden, reason in sent.hides.items():
        why = mount.why(f"artifacts/{name}/{hidden}")
        assert why["exists"] is (hidden in sent.shows)
        assert reason in str(why["not_shown_first"])
        assert f"not shown: {hidden}" in mount.artifactfs("why", str(root)).stdout


def test_a_link_leads_to_what_it_names(mount: Mounted) -> None:
    """Names in its target are others' in the mount where they had to be escaped: as they stand, it would show those."""
    root = mount.path / "artifacts" / "links to names that are escaped"
    assert [(root / f"l{number}").read_bytes() for number in (1, 2, 3)] == [b"one", b"two", b"three"]
    # Our own commands follow it, too.
    (tree,) = [name for name in os.listdir(root) if name == "d^02"]
    assert mount.why(f"artifacts/{root.name}/l3/../{tree}")["kind"] == "directory"


def test_nothing_of_it_was_unforeseen(mount: Mounted) -> None:
    """After all of them the process is there, and its log says nothing of what was not foreseen."""
    for name in SENT:
        mount.run("ls", "-R", f"artifacts/{name}", check=False)
    assert ask(mount, verb="status")["pid"]
    log = mount.log_text()
    assert " ERROR " not in log
    assert "Traceback" not in log
    # What is not shown is said once for each archive, with the first reason.
    assert "1 members of the archive" in log
    assert "it lies deeper than limits.max-depth = 256" in log


def test_a_larger_limit_shows_what_a_smaller_one_has_hidden(tmp_path: Path) -> None:
    """Also where the cache knows the archive as it looked under the smaller one; without asking again otherwise."""
    deep = of(saying(b"x", pax(b"path", b"x/" * 299 + b"f")) + file(b"s", b"deep")).data
    where = "x/" * 299 + "f"
    with Served(vm0_of_archives({"deep": lambda: deep})) as served:
        source = {"vm0": service_source("vm0", served.url)}
        with mounted(tmp_path, source) as mount:
            assert os.listdir(mount.path / "artifacts/deep") == ["good.txt"]
        with mounted(tmp_path, source, extra_config="[limits]\nmax-depth = 400\n") as mount:
            assert (mount.path / "artifacts/deep" / where).read_bytes() == b"deep"
