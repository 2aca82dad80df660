"""``debug-bundle``: what is in it, of a mount that is well, stuck or dead, and what is not, wherever it came from."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifactfs.cli import evidence
from artifactfs.observe.scrub import REMOVED, Scrubber
from tests.support.lab import Lab, Mounted, artifactfs, environment, mounted, service_source, write_config

SERVICE = "syntropic137"
# Part of every token in these tests; nothing else has it.
CANARY = "c4n4ry"


def bundle(environ: dict[str, str], file: Path, *arguments: str) -> dict[str, str]:
    """Make a bundle; return its pieces by name, after a look at what holds for every one."""
    done = artifactfs(environ, "debug-bundle", *arguments, "-o", str(file), timeout=120)
    assert f"wrote {file}" in done.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as tar:
        members = tar.getmembers()
        assert {member.name.partition("/")[0] for member in members} == {members[0].name.partition("/")[0]}
        assert all(member.isfile() and member.mode == 0o600 for member in members)
        pieces = {}
        for member in members:
            opened = tar.extractfile(member)
            assert opened is not None
            pieces[member.name.partition("/")[2]] = opened.read().decode()
    for name, text in pieces.items():
        assert CANARY not in text, f"{name}: {text[max(0, text.index(CANARY) - 300) : text.index(CANARY) + 50]}"
        if name.endswith(".json") and not text.startswith("missing: "):
            json.loads(text)
    assert set(pieces["README"].split("\n\n")[2].split()) == {*pieces} - {"README"}
    return pieces


def missing(pieces: dict[str, str]) -> set[str]:
    return {name for name, text in pieces.items() if text.startswith("missing: ")}


@pytest.fixture
def lab(lab: Lab) -> Lab:
    work = lab.store.add_workflow("research")
    for name in (f"vm0_live_{CANARY}title.md", f"password={CANARY}pw.txt", "plain.md"):
        row = lab.store.add_artifact(work.id, name, "file")
        lab.store.save_file(row.id, lab.store.objects.put(b"contents-of-a-file", durable=False), 18)
    return lab


@pytest.mark.fuse
def test_a_bundle_tells_much_and_no_secrets(tmp_path: Path, lab: Lab) -> None:
    """Tokens in variables, files, the configuration, addresses, titles and headers; the rest is there and complete."""
    token, other = f"lab-token-{CANARY}", f"file/token+{CANARY}="
    (tmp_path / "token").write_text(other + "\n")
    sources: dict[str, dict[str, object]] = {
        "work": service_source(SERVICE, lab.bases()[SERVICE]),
        "filed": {"type": SERVICE, "url": lab.bases()[SERVICE], "token-file": str(tmp_path / "token")},
        "wrong": {"type": "vm0", "token-env": f"vm0_live_{CANARY}_in_place_of_a_name"},
    }
    environ = {
        "LAB_TOKEN": token, "UNRELATED_SECRET": f"{CANARY}unrelated", "SYN_API_PASSWORD": f"{CANARY}password",
        "HTTPS_PROXY_OF_SOMEBODY": f"http://user:{CANARY}proxy@proxy.example/?key={CANARY}",
    }  # fmt: skip
    where = mounted(
        tmp_path, sources, "--log-level", "debug", names=("work", "filed"), environ=environ, extra_config=""
    )
    with where as mount:
        for source in ("work", "filed"):
            assert len(os.listdir(mount.path / source / "research")) > 3
        spoken = f"https://me:{CANARY}@host.example/a?X-Amz-Signature={CANARY}".encode()
        answer = b'{"detail": "no: %s, Bearer %s"}' % (spoken, other.encode())
        lab.fault("", status=403, body=answer, headers={"x-request-id": token})
        with contextlib.suppress(OSError):
            os.stat(mount.path / "work/research/by-id/3f2b8c1e-9d4a-4c55-8b1a-0e6d7f9a1b2c")
        lab.heal()
        (mount.path / "work/research/saved.md").write_text("contents-of-a-file")
        config = mount.home / "config.toml"
        pieces = bundle(mount.environ, tmp_path / "b.tar.gz", str(mount.path), "--config", str(config))
        assert missing(pieces) == set()
        assert not any("contents-of-a-file" in text for text in pieces.values())
        status = json.loads(pieces["status.json"])
        assert [source["name"] for source in status["sources"]] == ["work", "filed"]
        assert any(one["subject"].split("/")[1:3] == ["work", "research"] for one in status["errors"])
        assert json.loads(pieces["why.json"])[0]["path"].startswith("work/research")
        running = json.loads(pieces["running-config.json"])["sources"]
        assert running["wrong"]["token-env"] == REMOVED
        assert running["work"]["token-env"] == "LAB_TOKEN"
        assert "artifactfs.vfs.writeback.WriteBack.keep_publishing" in pieces["tasks.txt"]
        assert "pyfuse-" in pieces["tasks.txt"]
        stacks = {name.partition(" ")[0]: places for name, places in json.loads(pieces["threads.json"]).items()}
        assert any("artifactfs/cli/foreground.py" in place for place in stacks["MainThread"])
        assert "artifactfs_requests_total" in pieces["metrics.txt"]
        assert "plain.md" in pieces["log.txt"] or "status 403" in pieces["log.txt"]
        versions = json.loads(pieces["versions.json"])
        assert versions["packages"]["pyfuse3"]
        assert versions["libfuse"].startswith("3.")
        assert versions["kernel"].startswith("Linux ")
        assert str(status["pid"]) in json.loads(pieces["process.json"])["tasks"]
        assert json.loads(pieces["cache.json"])["database"] == "sound"
        assert any(one["file"].endswith("journal.db") for one in json.loads(pieces["journal-files.json"]))
        # The log itself, on this machine, has none either.
        assert token not in mount.log_text()
        assert other not in mount.log_text()


@pytest.mark.fuse
def test_a_bundle_of_a_stuck_or_dead_mount_has_less(tmp_path: Path, lab: Lab) -> None:
    """What can be seen from outside: its log, its threads in the kernel, what waits in its journal."""
    with mounted(tmp_path, {"work": service_source(SERVICE, lab.bases()[SERVICE])}, "--publish-delay", "600") as mount:
        (mount.path / "research/waits.md").write_text("contents-of-a-file")
        pid = mount.status()["pid"]
        with stopped(pid):
            pieces = bundle(mount.environ, tmp_path / "stuck.tar.gz", str(mount.path))
        assert f"stuck: its process {pid} does not answer" in " ".join(pieces["README"].split())
        assert "status.json" in missing(pieces)
        assert json.loads(pieces["process.json"])["tasks"][str(pid)]["state"] == "T"
        assert any(one["file"].endswith(".draft") for one in json.loads(pieces["journal-files.json"]))
        # It has gone on, and has told where its threads are, though it could not when it was asked.
        until_logged(mount, "Current thread")
        os.kill(pid, signal.SIGKILL)
        while mount_lives(pid):
            time.sleep(0.05)  # noqa: TID251 - no event loop here
        pieces = bundle(mount.environ, tmp_path / "dead.tar.gz", str(mount.path))
        assert "dead: its process is gone" in pieces["README"]
        assert missing(pieces) == {"status.json"}
        (waiting,) = json.loads(pieces["journals.json"])["waiting"]
        assert (waiting["path"], waiting["size"], waiting["tries"]) == ("research/waits.md", 18, 0)
        assert not any("contents-of-a-file" in text for text in pieces.values())
        again = artifactfs(mount.environ, "debug-bundle", "-o", str(tmp_path / "dead.tar.gz"), check=False)
        assert again.returncode == 1
        assert "exists already" in again.stderr


@pytest.mark.fuse
def test_a_bundle_is_not_written_into_a_mount(tmp_path: Path, lab: Lab) -> None:
    """It may be what does not answer."""
    with mounted(tmp_path, {"work": service_source(SERVICE, lab.bases()[SERVICE])}) as mount:
        done = artifactfs(mount.environ, "debug-bundle", str(mount.path), "-o", f"{mount.path}/b.tar.gz", check=False)
        assert done.returncode == 1
        assert "is in a mount" in done.stderr


def test_a_bundle_without_a_mount_and_with_a_broken_configuration(tmp_path: Path) -> None:
    """What is wrong with it is what is to be found out."""
    environ = environment(tmp_path / "home", SYN_API_URL=f"http://u:{CANARY}@host/?token={CANARY}")
    config = write_config(tmp_path, {"x": {"type": "vm0", "token": f"{CANARY}in-the-file"}})
    pieces = bundle(environ, tmp_path / "b.tar.gz", str(tmp_path / "nowhere"), "--config", str(config))
    assert "not mounted" in pieces["README"]
    assert "unknown key 'token'" in json.loads(pieces["config.json"])["problem"]
    assert not [
        check for check in json.loads(pieces["doctor.json"]) if check["what"] == "configuration" and check["ok"]
    ]


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def until_logged(mount: Mounted, text: str) -> None:
    end = time.monotonic() + 30
    while text not in mount.log_text():
        assert time.monotonic() < end
        time.sleep(0.05)  # noqa: TID251 - no event loop here


def mount_lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    return False


STUCK = """
import faulthandler, signal, sys
if sys.argv[1] == "tells":
    faulthandler.register(signal.SIGQUIT, all_threads=True, chain=False)
print("here", flush=True)
while True: pass
"""


@pytest.mark.parametrize("tells", [True, False])
def test_a_process_that_would_die_of_being_asked_is_not(tells: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only who catches the signal gets it: a mount of ours, its loop stuck or not."""
    monkeypatch.setattr(evidence, "STACKS_S", 0.1)
    command = [sys.executable, "-c", STUCK, "tells" if tells else "dies"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        try:
            assert evidence.ask_for_stacks(process.pid) is tells
            if tells:
                assert b"most recent call first" in process.stderr.readline()
            assert process.poll() is None
        finally:
            process.kill()


@pytest.mark.parametrize(
    "text",
    [
        "GET https://host/a?X-Amz-Signature={}&b=c failed",
        "https://user:{}@host/path",
        "Authorization: Bearer {}",
        "Proxy-Authorization: Basic {}",
        '{{"token": "{}", "a": null}}',
        "password={}",
        "api_key: {}",
        "vm0_live_{} and sk-{}",
        "--token={}",
        "a title with ghp_{} in it",
    ],
)
def test_what_looks_like_a_secret_is_removed(text: str) -> None:
    """Without knowing it; the rest stays readable, and JSON stays JSON."""
    secret = f"{CANARY}0123456789abcdef"
    said = Scrubber()(text.format(secret, secret))
    assert CANARY not in said
    assert REMOVED in said
    if text.startswith("{{"):
        assert json.loads(said)["a"] is None


def test_what_is_known_is_removed_in_every_form() -> None:
    """As it is, in an address, in JSON, in base64; short words are no secrets."""
    secret = f'a/b+{CANARY} "ü'
    forms = [secret, json.dumps(secret), base64.b64encode(secret.encode()).decode(), f"%2F+{CANARY}"]
    scrub = Scrubber([secret, "", "abc", f"/ {CANARY}"])
    said = scrub(" | ".join(forms) + " abc")
    assert CANARY not in said
    assert base64.b64encode(secret.encode()).decode().rstrip("=") not in said
    assert said.endswith(" abc")
    assert CANARY not in repr(scrub)


def test_what_is_no_secret_stays() -> None:
    """What a bundle is for."""
    text = (
        'source "work" has no token: set the environment variable VM0_TOKEN, or token-env or token-file\n'
        '{"token-env": "LAB_TOKEN", "authorization": null, "url": "http://localhost:8137/syntropic137"}\n'
        "/by-id/3f2b8c1e-9d4a-4c55-8b1a-0e6d7f9a1b2c artifactfs/providers/http.py:122 get"
    )
    assert Scrubber(["ok"])(text) == text
