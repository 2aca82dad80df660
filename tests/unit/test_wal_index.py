"""The memory that SQLite shares is cut short: no process ends by it, and nothing false is read or written."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Two processes use one database, the second of which has come and gone; then the index of its log is cut.
WORK = """
import os, sqlite3, subprocess, sys
from pathlib import Path
from artifactfs import wal_index
from artifactfs.database import connect

path, size, first = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
db = connect(path, ("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)",))
db.execute("PRAGMA wal_autocheckpoint=0")
for n in range(100):
    db.execute("INSERT INTO t VALUES (?, ?)", (first + n, "x" * 2000))
if first:
    sys.exit()
subprocess.run([sys.executable, *sys.argv[:3], "100"], check=True)
for _ in range(2):
    os.truncate(f"{path}-shm", size)
    try:
        with wal_index.unharmed():
            assert db.execute("SELECT count(*) FROM t").fetchone() == (200,)
    except (wal_index.LostIndexError, sqlite3.DatabaseError):
        pass
    assert db.execute("SELECT count(*) FROM t").fetchone() == (200,)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
db.close()
"""


@pytest.mark.parametrize("size", [0, 100, 4096, 16384])
def test_an_index_that_is_cut_short_ends_nobody(tmp_path: Path, size: int) -> None:
    """At whichever page the next look is."""
    script = tmp_path / "work.py"
    script.write_text(WORK)
    command = [sys.executable, str(script), str(tmp_path / "t.db"), str(size), "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_that_meet_one_fault_leave_the_guard_standing(tmp_path: Path) -> None:
    """The one that comes when all is mended takes it for no other fault."""
    script = """
import os, sqlite3, sys, threading
from pathlib import Path
from artifactfs.database import connect

path = Path(sys.argv[1])
connections = [connect(path, ("CREATE TABLE t (n INTEGER PRIMARY KEY)",)) for _ in range(8)]
for _ in range(100):
    os.truncate(f"{path}-shm", 0)
    begin = threading.Barrier(len(connections))
    def look(db):
        begin.wait()
        db.execute("SELECT count(*) FROM t").fetchone()
    threads = [threading.Thread(target=look, args=(db,)) for db in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("alive")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "t.db")], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


def test_another_fault_ends_the_process() -> None:
    """It is not looked at again and again."""
    script = """
import mmap, os, tempfile
from artifactfs import wal_index
wal_index.guard()
with tempfile.TemporaryFile() as file:
    file.truncate(8192)
    with mmap.mmap(file.fileno(), 8192) as memory:
        os.ftruncate(file.fileno(), 0)
        memory[5000]
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGBUS
