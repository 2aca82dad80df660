"""Signed links, and what an address says of a user, are secrets: whoever has one gets what it leads to.

A session in which files are read, written and fail to be, by links that services sign; what was said and kept is
searched for each signature that the server saw, as it is and as JSON and logs would have it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import tarfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from artifactfs.server.context import SIGNATURE
from artifactfs.store import demo
from artifactfs.store.catalog import Store
from tests.support import demo_tree
from tests.support.control import exchange, socket_of
from tests.support.lab import Lab, Mounted, artifactfs, mounted
from tests.support.log_guard import LogGuard

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

SERVICES = ("vm0", "vlmrun")


@pytest.fixture
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    store = Store(tmp_path_factory.mktemp("s") / "store")
    demo.fill(store)
    with Lab(store) as lab:
        yield lab
    store.close()


def signatures(lab: Lab) -> set[bytes]:
    """Return the signatures of all links that were used."""
    return {
        value.encode() for one in lab.seen for name, value in parse_qsl(one.query) if name == SIGNATURE
    }  # fmt: skip


def said_by(mount: Mounted) -> dict[str, bytes]:
    """Ask for all that a mount says."""
    found = {file.name: file.read_bytes() for file in (mount.path / ".artifactfs").iterdir()}
    found["status of the socket"] = exchange(socket_of(mount), b'{"verb": "status"}\n')
    for command in (("status",), ("status", "--json"), ("doctor",), ("pending", "list"), ("cache", "check")):
        done = artifactfs(mount.environ, *command, check=False)
        found[" ".join(command)] = (done.stdout + done.stderr).encode()
    for path in (Path(above) / name for above, *names in os.walk(mount.path) for name in chain(*names)):
        with contextlib.suppress(OSError):
            for name in os.listxattr(path, follow_symlinks=False):
                found[f"{name} of {path}"] = os.getxattr(path, name, follow_symlinks=False)
        if path.name == "artifact.json":
            found[str(path)] = path.read_bytes()
    return found


def bundled(mount: Mounted, file: Path) -> bytes:
    artifactfs(mount.environ, "debug-bundle", str(mount.path), "-o", str(file), timeout=120)
    with tarfile.open(file) as tar:
        return b"".join(opened.read() for member in tar if (opened := tar.extractfile(member)) is not None)


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_signed_link_is_told_or_kept(tmp_path: Path, signed: Lab, form: str, expected_logs: LogGuard) -> None:
    """Of downloads and uploads that go well, that fail at the storage, and whose links are refused."""
    expected_logs("Error in ASGI Framework", logger="hypercorn", level=logging.ERROR)
    expected_logs(level=logging.WARNING)
    sources = {name: source for name, source in demo_tree.sources(signed).items() if name in SERVICES}
    extra = f'log-level = "debug"\n[log]\nformat = "{form}"\n[mount]\ntimeout = 3\nxattrs = true\npublish-delay = 0.2\n'
    with mounted(tmp_path, sources, "--all", extra_config=extra) as mount:

        def read_all() -> bytes:
            done = subprocess.run(
                ["sh", "-c", "find . -path ./.artifactfs -prune -o -type f -print | head -50 | xargs -d '\\n' cat"],
                cwd=mount.path, capture_output=True, check=False, timeout=100,
            )  # fmt: skip
            return done.stderr

        texts = {"cat": read_all()}
        (mount.path / "vlmrun/files/new.txt").write_text("new")
        artifactfs(mount.environ, "flush", str(mount.path), check=False)
        artifactfs(mount.environ, "cache", "clear", "--config", str(mount.home / "config.toml"))
        for number, fault in enumerate(({"status": 500}, {"status": 403}, {"cut_after": 3}, {"status": 302})):
            headers = {"location": "http://127.0.0.1:1/x?X-Amz-Signature=astray0123456789"}
            signed.fault(SIGNATURE, **fault, **({"headers": headers} if "status" in fault else {}))
            texts[f"cat {fault}"] = read_all()
            with contextlib.suppress(OSError):
                (mount.path / f"vlmrun/files/fails{number}.txt").write_text(f"new {fault}")
            done = artifactfs(mount.environ, "flush", str(mount.path), check=False)
            texts[f"flush {fault}"] = (done.stdout + done.stderr).encode()
            signed.heal()
        texts |= said_by(mount)
        texts["bundle"] = bundled(mount, tmp_path / "bundle.tar.gz")
        texts["log"] = mount.log_text().encode()
        texts |= {str(path): path.read_bytes() for path in mount.home.rglob("*") if path.is_file()}
    texts |= {f"{path}, later": path.read_bytes() for path in mount.home.rglob("*") if path.is_file()}
    secrets = {*signatures(signed), b"astray0123456789"}
    assert len(secrets) > 5
    assert {what: found for what, text in texts.items() if (found := [one for one in secrets if one in text])} == {}
