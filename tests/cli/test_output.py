"""What is printed where: colour on terminals only, nothing folded in pipes, nothing from a title acts on a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifactfs.store.catalog import Store
from tests.support.lab import Mounted, artifactfs, environment, mounted

# Sets the window's title, moves the cursor, turns the rest of the line round, colours, rings.
HOSTILE = "\x1b]0;pwned\x07\x1b[2J\u202efdp.exe\x9b31m\r\n"


def on_terminal(environ: dict[str, str], *arguments: str) -> str:
    """Run the command on a terminal of its own; return all that it wrote there."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "artifactfs", *arguments],
        env={**environ, "TERM": "xterm-256color"}, stdin=slave, stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    written = b""
    try:
        while chunk := os.read(master, 1 << 16):
            written += chunk
    except OSError:
        pass  # EIO: the other side is closed
    finally:
        os.close(master)
        process.wait(60)
    return written.decode()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    found = environment(tmp_path / "home")
    return {name: value for name, value in found.items() if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}}


COMMANDS = [["doctor"], ["source", "list"], ["status"], ["--help"], ["why", "/tmp"], ["nonsense"], ["mount", "--help"]]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_pipe_gets_plain_text(environ: dict[str, str], arguments: list[str]) -> None:
    """No escape sequence, no carriage return: output is for programs there."""
    done = artifactfs(environ, *arguments, check=False)
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr


def test_a_terminal_gets_bold_headings_and_red_errors(environ: dict[str, str]) -> None:
    """Unless NO_COLOR is set; the words are the same."""
    shown = on_terminal(environ, "source", "list")
    assert "\x1b[1m" in shown
    assert "service" in shown
    complaint = on_terminal(environ, "why", "/tmp")
    assert "\x1b[1;31martifactfs:\x1b[0m /tmp is not in a mount" in complaint
    plain = on_terminal({**environ, "NO_COLOR": "1"}, "why", "/tmp")
    assert "\x1b" not in plain


def test_a_line_in_a_pipe_is_never_folded(environ: dict[str, str], tmp_path: Path) -> None:
    """A script finds the whole path in one line, however narrow a terminal would be."""
    path = tmp_path / ("long" * 40) / "store"
    config = tmp_path / "config.toml"
    config.write_text(f'[sources.mine]\ntype = "local"\npath = "{path}"\n')
    done = artifactfs({**environ, "COLUMNS": "40"}, "source", "list", "--config", str(config))
    assert sum(str(path) in line for line in done.stdout.splitlines()) == 1


def test_nothing_mounted_is_an_answer(environ: dict[str, str], tmp_path: Path) -> None:
    """0 and a sentence, or an empty list; mounts of others on this machine are no concern here."""
    done = artifactfs(environ, "status")
    own = [line for line in done.stdout.splitlines() if str(tmp_path) in line]
    assert own == []
    listed = json.loads(artifactfs(environ, "status", "--json").stdout)
    assert all(not row["mountpoint"].startswith(str(tmp_path)) for row in listed)
    if not listed:
        assert done.stdout == "nothing is mounted\n"


# -- in a mount ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A local store whose workflow, file, versions and author are all hostile."""
    directory = tmp_path_factory.mktemp("output")
    store = Store(directory / "store")
    workflow = store.add_workflow(HOSTILE)
    made = store.add_artifact(workflow.id, HOSTILE, "file", metadata={"note": HOSTILE})
    for number in range(2):
        data = f"{number}\n".encode()
        store.save_file(made.id, store.objects.put(data), len(data), message=HOSTILE, created_by=HOSTILE)
    store.close()
    with mounted(directory, {"mine": {"type": "local", "path": str(directory / "store")}}, names=("mine",)) as m:
        yield m


def the_file(mount: Mounted) -> Path:
    (workflow,) = (path for path in mount.path.iterdir() if not path.is_symlink())
    (file,) = (path for path in workflow.iterdir() if not path.is_symlink())
    return file


@pytest.mark.fuse
@pytest.mark.parametrize("command", ["why", "log", "status"])
def test_hostile_titles_are_shown_harmless(mount: Mounted, command: str) -> None:
    """On a terminal and in a pipe: what an agent wrote comes as escapes, and acts on nothing."""
    file = the_file(mount)
    piped = mount.artifactfs(command, str(file)).stdout
    shown = on_terminal(mount.environ, command, str(file))
    for text in (piped, shown):
        for harmful in ("\x1b]", "\x1b[2J", "\x07", "\u202e", "\x9b"):
            assert harmful not in text
    assert "\x1b" not in piped
    assert "pwned" in piped or command == "status"


@pytest.mark.fuse
def test_json_keeps_the_title_itself(mount: Mounted) -> None:
    """Programs get the raw text, as JSON escapes it."""
    file = the_file(mount)
    said = mount.artifactfs("why", "--json", str(file)).stdout
    assert "\x1b" not in said
    assert json.dumps(HOSTILE)[1:-1] in said
    versions = json.loads(mount.artifactfs("log", "--json", str(file)).stdout)["versions"]
    assert [row["message"] for row in versions] == [HOSTILE, HOSTILE]


@pytest.mark.fuse
def test_status_shows_the_mount(mount: Mounted) -> None:
    """A table for people, JSON for programs, only the mount that was asked for."""
    (row,) = json.loads(mount.artifactfs("status", "--json", str(the_file(mount))).stdout)
    assert row["mountpoint"] == str(mount.path)
    text = mount.artifactfs("status", str(mount.path)).stdout
    assert text.startswith(f"{mount.path}\n")
    assert "mine" in text


def test_commands_start_quickly(environ: dict[str, str]) -> None:
    """A shell calls the command at every TAB, a prompt perhaps ``status``: seconds would be felt."""
    for arguments in (["--version"], ["status"]):
        best = min(timed(environ, *arguments) for _ in range(3))
        # Takes 0.1 and 0.3 s on a small machine.
        assert best < 5, arguments


def timed(environ: dict[str, str], *arguments: str) -> float:
    began = time.monotonic()
    artifactfs(environ, *arguments)
    return time.monotonic() - began
