"""Tokens that change while they are mounted: `artifactfs login`, files that are written anew, `artifactfs logout`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from artifactfs.store.catalog import Store
from tests.support.lab import Fault, Lab, Mounted, artifactfs, environment, mounted, write_config
from tests.support.ring import with_ring
from tests.support.saving import flushed
from tests.support.syntropic137_store import make_store

pytestmark = pytest.mark.fuse

OLD, NEW = "tok_01d01d01d01d01d01d", "tok_2ew2ew2ew2ew2ew2ew"
QUICK = "[mount]\npublish-delay = 0.2\n"


@dataclass
class Guarded:
    """A served store whose service accepts one token at a time."""

    store: Store
    accepted: str = OLD
    lab: Lab = field(init=False)

    def __post_init__(self) -> None:
        """Prepare to serve."""
        self.lab = Lab(self.store, weather=self._checked)

    def _checked(self, _where: str) -> Fault | None:
        seen = self.lab.seen[-1]  # the one that is asked about: nothing ran in between
        if seen.origin == "storage" or seen.headers.get("authorization") == f"Bearer {self.accepted}":
            return None
        return Fault("", status=401, body=b'{"error": {"message": "expired", "code": "UNAUTHORIZED"}}')


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    made = Guarded(make_store(tmp_path / "served"))
    with made.lab:
        yield made
    made.store.close()


def login(environ: dict[str, str], name: str, token: str, *more: str) -> str:
    """Log in as a person does who pipes the token in; return what is said."""
    done = subprocess.run(
        [sys.executable, "-m", "artifactfs", "login", name, *more],
        env=environ, input=token, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert token not in done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def environ(tmp_path: Path, guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A home in which the old token was logged in with; there is no keyring, nor a variable."""
    no_ring = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    for name, value in no_ring.items():
        monkeypatch.setenv(name, value)
    environ = environment(tmp_path / "home", **no_ring)
    environ["ARTIFACTFS_CONFIG"] = str(write_config(tmp_path / "home", {"syn": source(guarded)}))
    return environ


def source(guarded: Guarded, **more: object) -> dict[str, object]:
    return {"type": "syntropic137", "url": guarded.lab.bases()["syntropic137"], **more}


def held(guarded: Guarded) -> dict[str, bytes]:
    """Return what the service has, by title."""
    found = {}
    for artifact in guarded.store.artifacts():
        (version,) = guarded.store.versions(artifact.id)[-1:]
        found[artifact.name] = guarded.store.objects.read(version.sha256 or "")
    return found


def refused(mount: Mounted, path: str) -> bool:
    """Tell whether looking into a directory that nobody has looked into is EACCES."""
    try:
        os.listdir(mount.path / path)
    except PermissionError:
        return True
    return False


@pytest.mark.parametrize("in_keyring", [False, True])
def test_an_expired_token_is_mended_by_login(
    tmp_path: Path, guarded: Guarded, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, in_keyring: bool
) -> None:
    """Without a remount: what was refused is seen, and what could not be saved is, without another command."""
    if in_keyring:
        with_ring(environ, tmp_path / "home")
        for name in ("PYTHON_KEYRING_BACKEND", "TEST_KEYRING", "PYTHONPATH"):
            monkeypatch.setenv(name, environ[name])
    said = login(environ, "syn", OLD)
    assert ("is kept in the system keyring" in said) is in_keyring
    with mounted(tmp_path, {"syn": source(guarded)}, extra_config=QUICK) as mount:
        pid = mount.status()["pid"]
        folder = mount.path / "Research"
        assert not refused(mount, ".")
        assert not refused(mount, "Research")
        guarded.accepted = NEW
        (folder / "waits.md").write_text("kept here\n")
        done = mount.artifactfs("flush", str(mount.path), check=False)
        assert done.returncode == 1
        assert "expired (401)" in done.stderr
        assert [row["path"] for row in mount.status()["pending"]] == ["Research/waits.md"]
        said = login(environ, "syn", NEW)
        where = "login (system keyring)" if in_keyring else "login ("
        assert f"syn: the mount at {mount.path} now uses {where}" in said
        flushed(folder)
        assert held(guarded)["waits.md"] == b"kept here\n"
        assert mount.status()["pending"] == []
        assert mount.status()["pid"] == pid
        # Once more changes nothing.
        assert "goes on with login" in login(environ, "syn", NEW)


def test_a_token_file_that_is_written_anew_is_read_again(
    tmp_path: Path, guarded: Guarded, environ: dict[str, str]
) -> None:
    """Nobody sees a failure: the refused request, one that saves too, is sent again with the new token."""
    token = tmp_path / "token"
    token.write_text(OLD)
    token.chmod(0o600)
    with mounted(tmp_path, {"syn": source(guarded, **{"token-file": str(token)})}, extra_config=QUICK) as mount:
        folder = mount.path / "Research"
        assert not refused(mount, "Research")
        token.write_text(NEW)
        guarded.accepted = NEW
        (folder / "new.md").write_text("saved at once\n")
        flushed(folder)
        assert held(guarded)["new.md"] == b"saved at once\n"
        posts = [seen for seen in guarded.lab.seen if seen.method == "POST" and seen.path.endswith("/artifacts")]
        assert [seen.headers["authorization"] for seen in posts] == [f"Bearer {OLD}", f"Bearer {NEW}"]
        assert mount.status()["sources"][0]["state"] == "ok"


def test_a_refused_token_is_not_looked_for_with_every_request(
    tmp_path: Path, guarded: Guarded, environ: dict[str, str]
) -> None:
    """One request each, as long as there is no other token; the refusal is EACCES and said."""
    token = tmp_path / "token"
    token.write_text(NEW)
    token.chmod(0o600)
    with mounted(tmp_path, {"syn": source(guarded, **{"token-file": str(token)})}) as mount:
        with guarded.lab.counted() as seen:
            assert all(refused(mount, ".") for _ in range(3))
        assert set(Counter(request.path for request in seen).values()) == {3}
        assert "expired (401)" in mount.status()["sources"][0]["state"]


def test_logout_takes_the_token_from_mounts_too(tmp_path: Path, guarded: Guarded, environ: dict[str, str]) -> None:
    """The next request goes without, and is refused; a login brings it back."""
    login(environ, "syn", OLD)
    with mounted(tmp_path, {"syn": source(guarded)}) as mount:
        assert not refused(mount, ".")
        done = artifactfs(environ, "logout", "syn")
        assert f"syn: the mount at {mount.path} now uses no token" in done.stdout
        with guarded.lab.counted() as seen:
            assert refused(mount, "Research")
        assert not any("authorization" in request.headers for request in seen)
        login(environ, "syn", OLD)
        assert not refused(mount, "Research")


def test_a_mount_that_takes_its_token_from_elsewhere_says_so(
    tmp_path: Path, guarded: Guarded, environ: dict[str, str]
) -> None:
    """It was started where a variable is set that goes before; the login is kept for the next mount."""
    given = source(guarded, **{"token-env": "MINE"})
    write_config(tmp_path / "home", {"syn": given})
    with mounted(tmp_path, {"syn": given}, environ={"MINE": OLD}) as mount:
        said = login(environ, "syn", OLD)
        assert f"syn: the mount at {mount.path} goes on with the variable MINE" in said
