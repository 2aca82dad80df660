"""The guards of the tests themselves: each thing that is leaked on purpose fails, and is named."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from artifactfs.observe.logs import JsonLines, TextLines
from tests.support.lab import environment
from tests.support.log_guard import MOUNTS, LogGuard, MountLogs

HERE = Path(__file__).resolve().parents[2]
HEAD = """
import gc, logging, os, socket, subprocess, sys, tempfile, threading, warnings
from pathlib import Path
import pytest
from tests.support.lab import artifactfs, environment, write_config
kept = []
"""

# What leaks, and what must be said of it; each in a module of its own.
LEAKS = {
    "a warning": ("logging.getLogger('artifactfs.x').warning('word 1')", "WARNING artifactfs.x: word 1"),
    "of a library": ("logging.getLogger('other').error('word 2')", "ERROR other: word 2"),
    "of a mount": ("log_of_a_mount(tmp_path, 'WARNING')", "WARNING artifactfs.content.facts: said by a mount"),
    "a ResourceWarning": ("open(os.devnull); gc.collect()", "ResourceWarning: unclosed file"),
    "any warning": ("warnings.warn('word 3')", "UserWarning: word 3"),
    "a descriptor": ("kept.append(os.open('/dev/null', 0))", ": /dev/null"),
    "a socket": ("kept.append(socket.socket())", ": socket:"),
    "a pipe": ("kept.extend(os.pipe())", ": pipe:"),
    "a thread": ("threading.Thread(target=threading.Event().wait, daemon=True, name='left').start()", "thread left"),
    "a temporary file": ("tempfile.mkstemp(prefix='left-')", "/left-"),
    "that of a program": ("subprocess.run(['mktemp', '-t', 'gone-XXX'], check=True, capture_output=True)", "/gone-"),
    "a process": ("subprocess.run('sleep 61 >/dev/null 2>&1 &', shell=True)", ": sleep 61"),
    # The line of its process goes on behind the name.
    "a mount": ("left_mounted(tmp_path)", "/left mounted\n"),
}
NEEDS_FUSE = {"a mount"}
MOUNT = '''
def log_of_a_mount(tmp_path, level):
    """Write what the process of a mount would."""
    environment(tmp_path / "home")
    logs = tmp_path / "home/.local/state/artifactfs/log"
    logs.mkdir(parents=True)
    (logs / "m.log").write_text(f"2026-05-01 10:00:00,000 {level} artifactfs.content.facts [-] said by a mount\\n")


def left_mounted(tmp_path):
    """Mount a store, and go away."""
    config = write_config(tmp_path, {"mine": {"type": "local", "path": str(tmp_path / "store")}})
    artifactfs(environment(tmp_path / "h"), "mount", str(tmp_path / "left mounted"), "--config", str(config))
'''


def ran(tmp_path: Path, *bodies: str) -> subprocess.CompletedProcess[str]:
    """Run tests under the guards of this project, in a process of its own."""
    place = HERE / f"tests/unit/leaking_{os.getpid()}"
    place.mkdir()
    for number, body in enumerate(bodies):
        (place / f"test_{number}.py").write_text(
            f"{HEAD}{MOUNT}\n\ndef test_it(tmp_path, expected_logs):\n    {body}\n"
        )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "b")]
    environ = {**os.environ, "ARTIFACTFS_TEST_GRACE_S": "0.3"}
    try:
        return subprocess.run(
            [*command, str(place)], cwd=HERE, env=environ, capture_output=True, text=True, check=False, timeout=100
        )
    finally:
        shutil.rmtree(place)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is said of all leaks together."""
    done = ran(tmp_path_factory.mktemp("leaks"), *(body for body, _ in LEAKS.values()))
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "leak", [pytest.param(leak, marks=[pytest.mark.fuse] if leak in NEEDS_FUSE else []) for leak in LEAKS]
)
def test_what_is_leaked_on_purpose_fails(said: str, leak: str):
    assert LEAKS[leak][1] in said, said


def test_what_is_announced_or_given_back_does_not(tmp_path: Path):
    body = (
        "expected_logs('word'); logging.getLogger('artifactfs.x').warning('word'); os.close(os.open('/dev/null', 0));"
        " log_of_a_mount(tmp_path, 'INFO')"
    )
    done = ran(tmp_path, body)
    assert done.returncode == 0, done.stdout


def test_each_line_of_a_mount_is_read_once_and_whole(tmp_path: Path):
    """Of a log that is being written, what has no end yet comes later."""
    logs, path = MountLogs(), tmp_path / "run/artifactfs/m.log"
    logs.watch(tmp_path)
    path.parent.mkdir(parents=True)
    line = "2026-05-01 10:00:00,000 ERROR artifactfs.fuse [read 7] first\n"
    path.write_text(line + line.replace("first", "second")[:-5])
    assert [record.getMessage() for record in logs.records()] == ["first"]
    path.write_text(line + line.replace("first", "second") + "Traceback: no line of a log\n")
    (record,) = logs.records()
    assert (record.getMessage(), record.levelname, record.name) == ("second", "ERROR", "artifactfs.fuse")
    assert logs.records() == []
    guard = LogGuard()
    guard.emit(record)
    assert "second" in guard.unannounced()[0]


SAID = {
    "a name with brackets": (TextLines(), "[read 7 path=/a [1].md] "),
    "JSON": (JsonLines(), ""),
    "text": (TextLines(), "[-] "),
}


@pytest.mark.parametrize("form", SAID)
def test_a_line_as_mounts_write_it_is_recognised(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch):
    """By their own formatters: a guard that knows another format sees nothing, and fails nothing."""
    formatter, facts = SAID[form]
    if facts.startswith("[read"):
        monkeypatch.setattr("artifactfs.observe.logs._operation_in_words", lambda: facts[1:-2])
    path = tmp_path / "run/artifactfs/m.log"
    path.parent.mkdir(parents=True)
    levels = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
    said = [logging.LogRecord("artifactfs.fuse", level, "x", 1, "said [%s]", (level,), None) for level in levels]
    path.write_text("".join(formatter.format(record) + "\n" for record in said))
    assert facts in path.read_text()
    logs = MountLogs()
    logs.watch(tmp_path)
    found = [(record.levelno, record.getMessage()) for record in logs.records()]
    assert found == [(logging.WARNING, "said [30]"), (logging.ERROR, "said [40]")]


def test_what_python_says_in_the_process_of_a_mount_is_seen(tmp_path: Path):
    """A file that nobody closed, and an error that nobody could be told of."""
    environ = environment(tmp_path)
    try:
        path = tmp_path / "run/artifactfs/m.log"
        path.parent.mkdir(parents=True)
        code = "import os\nclass Bad:\n    def __del__(self):\n        raise ValueError\nBad()\nopen(os.devnull)"
        with path.open("w") as log:
            subprocess.run([sys.executable, "-c", code], env=environ, stderr=log, check=True)
        logs = MountLogs()
        logs.watch(tmp_path)
        said = [record.getMessage() for record in logs.records()]
    finally:
        MOUNTS.forget(tmp_path)
    assert len(said) == 2
    assert said[0].startswith("Exception ignored in")
    assert "ResourceWarning: unclosed file" in said[1]
