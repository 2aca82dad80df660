"""The guards of the tests themselves: each thing that is leaked on purpose fails, and is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.log_guard import LogGuard, MountLogs

HERE = Path(__file__).resolve().parents[2]
HEAD = """
import gc, logging, os, socket, subprocess, sys, tempfile, threading, warnings
from pathlib import Path
import pytest
from tests.support.lab import environment
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
}
MOUNT = '''
def log_of_a_mount(tmp_path, level):
    """Write what the process of a mount would."""
    environment(tmp_path / "home")
    logs = tmp_path / "home/.local/state/artifactfs/log"
    logs.mkdir(parents=True)
    (logs / "m.log").write_text(f"2026-05-01 10:00:00,000 {level} artifactfs.content.facts [-] said by a mount\\n")
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


@pytest.mark.parametrize("leak", LEAKS)
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
