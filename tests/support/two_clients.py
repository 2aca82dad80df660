"""What state machines of two clients share: a real mount, what can happen to it, and to its service.

One client is the mount and the programs on it, the other changes the service's store underneath. ``foggy`` are the
names that the other one has touched and the mount has not been seen to show as they are.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import StopTest
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from artifactfs.store.catalog import Store
from tests.support.control import ask
from tests.support.examples import EXAMPLES
from tests.support.lab import Lab, Mounted, mounted, service_source
from tests.support.ledger import TWIN, Ledger, unmarked
from tests.support.saving import killed, mount_again

CONFIG = "[mount]\npublish-delay = 0.1\ntimeout = 5\n"
# What a program may be told while the service fails.
WEATHER = {errno.EIO, errno.ETIMEDOUT, errno.EHOSTUNREACH}
FLUSHED_S = 60.0
# How long a mount may say that a service fails which does not any more.
BELIEVED_S = 10.0


def brief(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return enough of some contents to know them by."""
    return {name: data.split(b"\n")[0].decode() for name, data in files.items()}


class TwoClients(RuleBasedStateMachine):
    """A mount, a second client, and what they have saved."""

    place: ClassVar[Path]
    service: ClassVar[str]
    dialect: ClassVar[str]
    count = 0

    def __init__(self) -> None:
        """Mount an empty service."""
        super().__init__()
        type(self).count += 1
        here = self.place / str(self.count)  # short: a socket is in it
        here.mkdir()
        self.stack = contextlib.ExitStack()
        self.store = Store(here / "store")
        self.stack.callback(self.store.close)
        self.ledger = Ledger()
        self.prepare()
        self.lab = None if self.service == "local" else self.stack.enter_context(Lab(self.store))
        source: dict[str, object] = {"type": "local", "path": str(here / "store")}
        if self.lab is not None:
            source = service_source(self.service, self.lab.bases()[self.dialect])
        self.mount: Mounted = self.stack.enter_context(
            mounted(here, {"mine": source}, names=("mine",), extra_config=CONFIG)
        )
        self.view: dict[str, bytes] = {}
        self.foggy: set[str] = set()
        self.acted: set[str] = set()
        self.handles: list[tuple[int, str | None]] = []
        self.failing, self.lossy, self.healed_at = False, False, -math.inf
        self.is_fresh = False
        self.done: list[str] = []
        self.began = time.monotonic()
        self.begin()

    # -- what a dialect says ---------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Fill the store before it is mounted."""
        raise NotImplementedError

    def begin(self) -> None:
        """Look at the mount for the first time: what was never seen is not there while the service fails."""
        self.listing()

    def truth(self) -> list[tuple[str, bytes]]:
        """Return the names and contents that the service has."""
        raise NotImplementedError

    def listing(self) -> set[str]:
        """Return what the mount lists."""
        raise NotImplementedError

    def check_more(self) -> None:
        """Check what else must hold once everything is published."""

    def look_again(self) -> None:
        """Take over of what the mount shows what the service does not say by itself."""

    @property
    def folder(self) -> Path:
        """Return the directory of the mount that both change."""
        raise NotImplementedError

    def did(self, *what: object) -> None:
        """Keep what was done, for whoever has to understand a failure."""
        at = time.monotonic() - self.began
        shown = [brief({"": one})[""] if isinstance(one, bytes) else str(one) for one in what]
        self.done.append(f"{at:.2f} {' '.join(shown)}")

    # -- looking ---------------------------------------------------------------------------------------------

    def real(self, name: str) -> Path:
        return self.folder / name

    def read(self, name: str) -> bytes | None:
        try:
            return self.real(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def shows(self, name: str) -> bool:
        """Tell whether the mount shows a name as the service has it."""
        with self.weather():
            return self.read(name) == self.view.get(name)
        return False

    def is_foggy(self, name: str) -> bool:
        fog = frozenset[str]().union(*(self.ledger.tied(one) for one in self.foggy))
        return bool({name, *self.above(name)} & fog)

    @staticmethod
    def above(name: str) -> list[str]:
        parts = name.split("/")
        return ["/".join(parts[:depth]) for depth in range(1, len(parts))]

    def clear(self, names: Any) -> set[str]:
        """Return those of the names of which everything is known."""
        return {name for name in names if not self.is_foggy(name)}

    def check_listing(self) -> None:
        with self.weather():
            shown = self.listing()
            seen = {name for name in self.clear(shown) if not self.is_foggy_mark(name)}
            known = {name for name in self.clear(self.view) if not self.is_foggy_mark(name)}
            assert seen == known, (seen, known, self.foggy)

    def is_foggy_mark(self, name: str) -> bool:
        """Tell whether a name may be that of a save which came too late to a foggy one, or of a twin that was."""
        if TWIN.search(name) and not self.is_fresh:
            return True
        plain = unmarked(name)
        return name != plain and (self.is_foggy(plain) or plain in {unmarked(one) for one in self.foggy})

    def check_name(self, name: str) -> None:
        """Check what the mount shows under a name that was just changed."""
        with self.weather():
            got = self.read(name)
            if not self.is_foggy(name):
                assert got == self.view.get(name), (name, got and got[:40], self.view.get(name, b"")[:40])
                assert got is None or self.real(name).stat().st_size == len(got)
            elif got:
                assert self.ledger.knows(got), (name, got[:40])

    @contextlib.contextmanager
    def weather(self) -> Iterator[None]:
        """Let a program be told that the service fails, while it does."""
        try:
            yield
        except OSError as error:
            if not self.is_weather(error):
                raise

    def is_weather(self, error: OSError) -> bool:
        """Tell whether an error is what a program may be told while the service fails, and a moment longer."""
        stormy = self.failing or self.lossy or time.monotonic() < self.healed_at + BELIEVED_S
        return stormy and error.errno in WEATHER

    def told(self, name: str, act: Callable[[], None], data: bytes | None = None, *more: int) -> bool:
        """Run what a program does; return False if it was told that it failed, where it may.

        A conflict is told once, by ESTALE, and what was saved is kept: the program saves again.
        """
        foggy = self.is_foggy(name)
        for _ in range(2):
            try:
                act()
            except OSError as error:
                self.did("was told", errno.errorcode[error.errno or 0])
                if data is not None and error.errno == errno.ESTALE:
                    continue
                passes = self.is_weather(error) or (foggy and error.errno in more)
                if not passes:
                    raise
                if data is not None:
                    self.ledger.saved(data, name)
                    self.doubt(name)
                self.foggy.add(name)
                return False
            else:
                return True
        raise AssertionError("told twice of one conflict", name)

    def doubt(self, name: str) -> None:
        """Note that what was under a name may have been replaced or removed by who had seen it."""
        self.doubt_but(name, ())

    def doubt_but(self, name: str, spared: Collection[bytes]) -> None:
        """Note the same, but of some contents."""
        for data in self.ledger.at(name):
            if data not in spared:
                self.ledger.doubted(data)

    # -- what happens ----------------------------------------------------------------------------------------

    @precondition(lambda self: self.lab is not None and not self.failing)
    @rule()
    def service_fails(self) -> None:
        assert self.lab
        self.failing = True
        self.did("service fails")
        self.lab.fault("", status=500)

    @precondition(lambda self: self.failing)
    @rule()
    def service_heals(self) -> None:
        if self.lab is not None:
            self.lab.heal()
        if self.failing:
            self.did("service heals")
            self.healed_at = time.monotonic()
        self.failing = False

    @precondition(lambda self: self.lab is not None and not self.failing)
    @rule()
    def service_loses_answers(self) -> None:
        assert self.lab
        self.did("service loses answers")
        self.lossy = True
        for method in ("POST", "PUT"):
            self.lab.fault("", lose_answer=True, method=method, times=1)

    def close_all(self) -> None:
        """Close what was kept open, and was not written to since."""
        for fd, _name in self.handles:
            with contextlib.suppress(OSError):  # of a mount that was killed, or told of a conflict
                os.close(fd)
        self.handles.clear()

    @rule()
    def flush(self) -> None:
        """Everything is published, and as it must be."""
        self.settle()

    def settle(self) -> None:
        self.service_heals()
        self.close_all()
        end = time.monotonic() + FLUSHED_S
        # More than once: where an answer was lost, a service is waited for before it is asked for the same again.
        while self.left(pending := self.flushed()) and time.monotonic() < end:
            time.sleep(0.1)  # noqa: TID251 - no event loop here
        assert not self.left(pending), pending
        if self.lossy and self.lab is not None:
            self.lab.heal()
            self.lossy, self.healed_at = False, time.monotonic()
        self.check_truth()

    def flushed(self) -> list[dict[str, Any]]:
        """Have everything published, as ``artifactfs flush`` does; return what could not be."""
        answer = ask(self.mount, verb="flush", path="")
        while answer["left"]:
            answer = ask(self.mount, verb="flush", path="", since=answer["since"])
        pending: list[dict[str, Any]] = answer["pending"]
        return pending

    def left(self, pending: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return what of the changes that wait should not."""
        return pending

    def check_truth(self) -> None:
        truth = self.truth()
        self.did("settled", [f"{name}: {brief({'': data})['']}" for name, data in truth])
        self.ledger.check(truth)
        sure = {n: d for n, d in truth if not self.is_foggy(n) and not self.is_foggy_mark(n)}
        known = {n: d for n, d in self.view.items() if not self.is_foggy(n) and not self.is_foggy_mark(n)}
        assert sure == known, (brief(sure), brief(known), self.foggy)
        self.check_more()
        before, was_foggy, self.view = self.view, bool(self.foggy), dict(truth)
        self.ledger.settle(truth)
        self.acted.clear()
        marked = {name for name in self.view if self.is_foggy_mark(name)}
        foggy = {name for name in {*before, *self.view} - marked if self.is_foggy(name)} | self.foggy
        self.foggy = {name for name in foggy if not self.shows(name)}
        if not self.foggy:
            self.ledger.ties.clear()
        if was_foggy:
            self.look_again()
        self.check_listing()

    @rule(how=st.booleans())
    def mount_anew(self, how: bool) -> None:
        """The mount ends, as a person ends it or by a kill, and begins again."""
        self.did("mount anew", how)
        if how:
            self.service_heals()
            self.close_all()
            self.mount.artifactfs("umount", str(self.mount.path))
        else:
            killed(self.mount)
            self.close_all()
        mount_again(self.mount)
        for name in self.clear(self.view):
            self.check_name(name)

    def teardown(self) -> None:
        """Whatever happened: in the end a mount that knows nothing shows what the service has."""
        try:
            if sys.exc_info()[0] is None:
                self.finish()
            elif not isinstance(sys.exc_info()[1], StopTest):  # hypothesis has made it too long
                self.tell()
        finally:
            self.service_heals()
            self.close_all()
            self.stack.close()

    def finish(self) -> None:
        """Check that a mount without a cache shows what the service has."""
        try:
            self.settle()
            self.did("mount without a cache")
            self.mount.artifactfs("umount", str(self.mount.path))
            shutil.rmtree(self.mount.home / ".cache/artifactfs")
            mount_again(self.mount)
            if self.foggy:
                self.look_again()
            self.foggy.clear()
            self.ledger.ties.clear()
            self.is_fresh = True
            self.check_listing()
            for name in self.view:
                self.check_name(name)
        except BaseException:
            self.tell()
            raise

    def tell(self) -> None:
        """Tell what was done and what was believed, beside the steps."""
        there = [(name, *brief({"": data}).values()) for name, data in self.truth()]
        self.done += [f"believed: {brief(self.view)}, foggy: {self.foggy}, tied: {self.ledger.ties}"]
        print("\n".join([*self.done, f"the service: {there}", ""]))  # noqa: T201 - of a test that fails


def run_machine(machine: type[TwoClients], place: Path, *, examples: int, steps: int) -> None:
    """Run a machine: the same few examples each time, or many new ones if ``ARTIFACTFS_TEST_EXAMPLES`` says so.

    A failing one is printed whole: to shrink it takes longer than to read it.
    """
    made = type(machine.__name__, (machine,), {"place": place})
    run_state_machine_as_test(
        made,
        settings=settings(
            max_examples=EXAMPLES or examples, stateful_step_count=steps, deadline=None, derandomize=not EXAMPLES,
            database=None, phases=(Phase.generate,), print_blob=True, report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
