"""What a mount of the demo must show, said by the store alone, and the ways programs read it.

Nothing here asks artifactfs for names: a place is the directory a file stands in, and files are told apart by
their bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

from artifactfs.store.catalog import Store
from artifactfs.store.rows import StoredArtifact, Workflow
from tests.support.lab import Lab, Mounted, service_source

Found = Mapping[str, tuple[str, int]]
"""SHA-256 and size of each regular file by its path below the mount."""
Shown = Counter[tuple[str, str, int]]
"""(directory, SHA-256, size), with how many there are."""
SERVICES = ("vm0", "syntropic137", "vlmrun", "local")
# The tools these tests run, with Debian's names of their packages.
PACKAGES = {"rsync": "rsync", "tar": "tar", "cp": "coreutils", "cat": "coreutils", "find": "findutils"}


def sources(lab: Lab) -> dict[str, dict[str, object]]:
    """Return the four sources of the demo, as ``mount --demo`` configures them."""
    bases = lab.bases()
    return {
        "vm0": service_source("vm0", bases["vm0"]),
        "syntropic137": service_source("syntropic137", bases["syntropic137-c"]),
        "vlmrun": service_source("vlmrun", bases["vlmrun"], **{"allow-private-urls": True}),
        "local": {"type": "local", "path": str(lab.store.root)},
    }


def need(tool: str) -> str:
    """Return the path of a tool; fail with what to install where it is missing."""
    found = shutil.which(tool)
    if found is None:
        pytest.fail(f"this test runs {tool}: apt-get install {PACKAGES.get(tool, tool)} (scripts/setup --dev does)")
    return found


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- what must be shown ----------------------------------------------------------------------------------------


def expected(store: Store) -> Shown:
    """Return every file that the present of the four sources must show."""
    found: Shown = Counter()
    for workflow in store.workflows():
        for artifact in store.artifacts(workflow.id):
            found.update(_places(store, workflow, artifact))
    for upload in store.uploads():
        found[("vlmrun/files", upload.sha256, upload.size)] += 1
    return found


def _places(store: Store, workflow: Workflow, artifact: StoredArtifact) -> Iterator[tuple[str, str, int]]:
    version = store.version(artifact.id, artifact.current)
    assert version is not None
    if artifact.kind == "tree":
        for file in store.tree(artifact.id, version.seq):
            if file.sha256:
                for base in (f"local/{workflow.name}", f"vm0/{artifact.role}s"):
                    yield os.path.dirname(f"{base}/{artifact.name}/{file.path}"), file.sha256, file.size
        return
    assert version.sha256
    inner = artifact.name if artifact.run_id else artifact.name.replace("/", "^2F")
    run = next((run for run in store.runs(workflow.id) if run.id == artifact.run_id), None)
    where = f"{workflow.name}/{run.id}/{artifact.phase}" if run else workflow.name
    yield os.path.dirname(f"local/{where}/{inner}"), version.sha256, version.size
    data = store.objects.read(version.sha256) if version.size < 1 << 20 else b"\0"
    if _is_text(data):
        yield os.path.dirname(f"syntropic137/{where}/{inner}"), version.sha256, version.size
    if run:
        sha, size = version.sha256, version.size
        if artifact.media_type == "text/uri-list":  # an address: the bytes behind it are shown
            sha = data.decode().split("/")[3]
            size = store.objects.path(sha).stat().st_size
        yield os.path.dirname(f"vlmrun/{workflow.name}/{run.uuid}/{artifact.phase}/{inner}"), sha, size


def _is_text(data: bytes) -> bool:
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def shown(found: Found) -> Shown:
    """Return what was found in the form of ``expected``; a run's response.json is no artifact."""
    return Counter(
        (os.path.dirname(path), *facts)
        for path, facts in found.items()
        if not (path.startswith("vlmrun/") and path.endswith("/response.json"))
    )


# -- how programs read it --------------------------------------------------------------------------------------


def files_below(root: Path) -> list[str]:
    """Return the paths of all regular files below a directory, in the order of the names."""
    found = []
    for where, _, names in os.walk(root):
        for name in names:
            path = os.path.join(where, name)
            if not os.path.islink(path):
                found.append(os.path.relpath(path, root))
    return sorted(found)


def read_tree(root: Path) -> Found:
    """Read copied files from an ordinary disk."""
    found = {}
    for path in files_below(root):
        data = (root / path).read_bytes()
        found[path] = (sha256(data), len(data))
    return found


def by_cp(mount: Mounted, room: Path) -> Found:
    """Copy with ``cp -r``."""
    mount.run(need("cp"), "-r", "--no-target-directory", ".", str(room / "copy"))
    return read_tree(room / "copy")


def by_rsync(mount: Mounted, room: Path) -> Found:
    """Copy with ``rsync -a``, which complains if a file is not as long as its size said."""
    done = mount.run(need("rsync"), "-a", "./", str(room / "copy"))
    assert not done.stderr
    return read_tree(room / "copy")


def by_tar(mount: Mounted, room: Path) -> Found:
    """Pack with ``tar c``, which pads or cuts a file that is not as long as its size said."""
    done = mount.run(need("tar"), "cf", str(room / "all.tar"), ".")
    assert not done.stderr
    found = {}
    with tarfile.open(room / "all.tar") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                digest = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]  # it can read
                found[member.name.removeprefix("./")] = (digest, member.size)
    return found


def by_cat(mount: Mounted, room: Path) -> Found:
    """Read each directory's files with one ``cat``; sizes are asked for only afterwards."""
    found = {}
    for where, _, names in os.walk(mount.path):
        plain = sorted(name for name in names if not os.path.islink(os.path.join(where, name)))
        if not plain:
            continue
        with (room / "cat").open("w+b") as out:
            subprocess.run([need("cat"), "--", *plain], cwd=where, stdout=out, check=True)
            out.seek(0)
            for name in plain:
                path = os.path.join(where, name)
                data = out.read(os.stat(path).st_size)
                found[os.path.relpath(path, mount.path)] = (sha256(data), len(data))
            assert not out.read(1)
    return found


_MAP = """
import hashlib, json, mmap, os, sys
found = {}
for path in json.load(sys.stdin):
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) if size else file.read()
        found[path] = (hashlib.sha256(data).hexdigest(), len(data))
json.dump(found, sys.stdout)
"""


def by_mmap(mount: Mounted, room: Path) -> Found:
    """Map each file; the length of the map is what ``fstat`` says.

    In a process of its own: a page fault holds Python's lock, which the server's thread needs to send the page.
    """
    files = json.dumps(files_below(mount.path))
    done = mount.run(sys.executable, "-c", _MAP, input=files)
    return {path: (digest, size) for path, (digest, size) in json.loads(done.stdout).items()}


WAYS: dict[str, Callable[[Mounted, Path], Found]] = {
    "cat": by_cat, "cp -r": by_cp, "tar c": by_tar, "rsync -a": by_rsync, "mmap": by_mmap,
}  # fmt: skip

K = TypeVar("K")


def differences(got: Counter[K], wanted: Counter[K]) -> str:
    """Return what is missing and what is too much, for a message."""
    missing, extra = wanted - got, got - wanted
    return "".join(f"missing {key}\n" for key in missing) + "".join(f"too much {key}\n" for key in extra)
