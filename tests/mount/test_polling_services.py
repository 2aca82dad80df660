"""What others change shows by itself, service by service: what ``test_polling.py`` shows of VM0 and Syntropic137.

VLM Run lists files and executions; the local store is on this machine, and asked at every look.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from artifactfs.store.catalog import Store
from artifactfs.store.rows import Upload
from tests.support.lab import Lab, mounted, service_source
from tests.support.log_guard import LogGuard
from tests.support.syntropic137_store import START_NS, add_file, add_run

pytestmark = pytest.mark.fuse

# Far below the minute for which names are believed, far above what a look takes on a busy machine.
SOON_S = 30.0


@pytest.fixture(autouse=True)
def _servers_may_complain(expected_logs: LogGuard) -> None:
    """The tests' own servers are told to end while they answer, and say so."""
    expected_logs("Error in ASGI Framework", logger="hypercorn", level=logging.ERROR)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)  # noqa: TID251 - no event loop here


def upload(store: Store, number: int, name: str, data: bytes) -> str:
    """Hand in a file as another client does; return its id."""
    identifier, sha256 = f"00000000-0000-4000-8000-{number:012x}", store.objects.put(data)
    md5 = hashlib.md5(data).hexdigest()
    store.put_upload(Upload(identifier, name, "assistants", len(data), sha256, md5, START_NS + number * 10**9))
    return identifier


def test_files_and_runs_of_vlmrun_show_by_themselves(lab: Lab, tmp_path: Path) -> None:
    """New ones, removed ones, one of the same name with other content; also under names that were absent."""
    store = lab.store
    store.add_workflow("agent", workflow_id="wf-1", created_at_ns=START_NS)
    first = add_run(store, "wf-1", 1)
    add_file(store, "wf-1", "one.txt", b"one", run=first)
    old, gone = upload(store, 1, "kept.txt", b"old"), upload(store, 2, "gone.txt", b"gone")
    source = service_source("vlmrun", lab.bases()["vlmrun"], **{"allow-private-urls": True})
    with mounted(tmp_path, {"mine": source}, "--poll-interval", "0.3") as mount:
        files, runs = mount.path / "files", mount.path / "agent"
        assert {"kept.txt", "gone.txt"} <= set(os.listdir(files))
        assert (files / "kept.txt").read_bytes() == b"old"
        assert not (files / "new.txt").exists()
        assert first.uuid in os.listdir(runs)
        with (files / "kept.txt").open("rb") as reader:
            assert reader.read(1) == b"o"
            upload(store, 3, "new.txt", b"new")
            upload(store, 4, "kept.txt", b"newer")
            store.delete_upload(old)
            store.delete_upload(gone)
            second = add_run(store, "wf-1", 2)
            until((files / "new.txt").exists, "a file that was absent shows")
            until(lambda: not (files / "gone.txt").exists(), "what was removed does not show")
            until(lambda: (files / "kept.txt").read_bytes() == b"newer", "the newer one shows under the same name")
            until((runs / second.uuid).is_dir, "a run that was absent shows")
            assert reader.read() == b"ld", "who had it open reads what was opened"
        assert (files / "new.txt").read_bytes() == b"new"
        assert {first.uuid, second.uuid} <= set(os.listdir(runs))


def test_what_others_do_in_the_local_store_is_there_at_the_next_look(tmp_path: Path) -> None:
    """Without polling: another mount, or a server, of the same store; also where nothing was a moment ago."""
    with closing(Store(tmp_path / "store")) as store:
        store.add_workflow("Research", workflow_id="wf-1", created_at_ns=START_NS)
        add_file(store, "wf-1", "one.md", b"one")
        with mounted(tmp_path, {"mine": {"type": "local", "path": str(tmp_path / "store")}}) as mount:
            place = mount.path / "Research"
            assert (place / "one.md").read_bytes() == b"one"
            assert not (place / "two.md").exists()
            add_file(store, "wf-1", "two.md", b"two")
            (one,) = store.artifacts_named("wf-1", "one.md")
            data = b"one, the next version"
            store.save_file(one.id, store.objects.put(data), len(data))
            until((place / "two.md").exists, "what was absent a moment ago is there")
            until(lambda: (place / "one.md").read_bytes() == data, "the next version is read")
            assert (place / "one.md").stat().st_size == len(data)
            store.delete_artifact(one.id)
            until(lambda: not (place / "one.md").exists(), "what was removed is gone")
            assert "one.md" not in os.listdir(place)
