"""What programs on a mount do to files, as rules of a state machine of two clients."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.support.two_clients import TwoClients

NAMES = ("a", "b.md", "c d.txt", "é.md")
TEMPORARY = ("{}.tmp.71", ".{}.Ab1Cd2", ".{}.swp", "{}~", "4913")
# What a name may be told that the other client has made something else of.
OTHERWISE = (errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ESTALE)
MAX_HELD = 2
# What happens in a rule may depend on what is published by then, whether it is tried must not: Hypothesis would say
# that it is flaky. So no precondition looks at the view.
picks = st.integers(0, 99)
sizes = st.sampled_from((0, 16, 5000, 70_000, 300_000))


class Programs(TwoClients):
    """Saves in the ways that programs have, removals, renames, and descriptors that stay open."""

    has_names = True
    temporary: ClassVar[frozenset[str]] = frozenset(t.format(n) for t in TEMPORARY for n in NAMES)

    def pool(self) -> list[str]:
        """Return names of files that are there or could be."""
        return sorted({*NAMES, *self.view})

    def may_move(self, old: str, new: str) -> bool:
        """Tell whether a rename is one, and no copy."""
        return old != new

    def write(self, name: str, data: bytes) -> None:
        """Empty a file and write to it, or create it."""
        self.real(name).write_bytes(data)

    def temporary_of(self, name: str, how: str, pick: int) -> str:
        """Return the temporary name that a program saves a name by."""
        above, slash, _ = name.rpartition("/")
        return above + slash + how.format(NAMES[pick % len(NAMES)])

    # -- programs on the mount -------------------------------------------------------------------------------

    def some(self, pick: int) -> str:
        """Return a name that is there or could be."""
        names = self.pool()
        return names[pick % len(names)]

    def replaced(self, name: str, data: bytes, seen: bytes | None = None) -> None:
        """Note that a program saved ``data``; ``seen`` is what it knows to have replaced."""
        self.did("saved", name, data, *(() if seen is None else ("over", seen)))
        if not self.is_foggy(name):
            assert seen is None or seen == self.view.get(name, b"")
            self.ledger.ended(self.view.get(name))
        elif seen is None:
            self.doubt(name)
        else:
            self.ledger.ended(seen)
        self.ledger.saved(data, name)
        self.view[name] = data
        self.acted.add(name)
        self.check_name(name)
        self.check_listing()

    @rule(pick=picks, size=sizes)
    def save(self, pick: int, size: int) -> None:
        """Empty it and write, or create it."""
        name, data = self.some(pick), self.ledger.fresh("m", size)
        if self.told(name, lambda: self.write(name, data), data, *OTHERWISE):
            self.replaced(name, data)

    @rule(pick=picks, size=sizes, where=st.sampled_from(("end", "middle", "all", "cut")))
    def change(self, pick: int, size: int, where: str) -> None:
        """Read it and write into it, through one descriptor."""
        name, fresh = self.some(pick), self.ledger.fresh("m", size)
        done: list[tuple[bytes, bytes]] = []

        def act() -> None:
            with self.real(name).open("r+b", buffering=0) as file:
                seen = file.readall()
                at = {"end": len(seen), "middle": len(seen) // 2, "all": 0, "cut": 5}[where]
                if where in {"all", "cut"}:
                    file.truncate(min(at, len(seen)))
                    at = min(at, len(seen))
                data = seen[:at] + fresh + (b"" if where == "cut" else seen[at + len(fresh) :])
                if where == "all":
                    data = fresh
                done[:] = [(seen, data)]
                file.seek(at)
                file.write(fresh)

        if name not in self.view and not self.is_foggy(name):
            with self.weather():
                assert self.read(name) is None
            return
        if self.told(name, act, None, *OTHERWISE) and done:
            self.replaced(name, done[0][1], done[0][0])
        elif done:
            self.ledger.saved(done[0][1], name)
            self.doubt(name)

    @rule(pick=picks, size=sizes, how=st.sampled_from(TEMPORARY))
    def replace(self, pick: int, size: int, how: str) -> None:
        """Write a temporary name and rename it over, as careful programs do."""
        name, data = self.some(pick), self.ledger.fresh("m", size)
        temporary = self.real(self.temporary_of(name, how, pick))

        def act() -> None:
            temporary.write_bytes(data)
            try:
                temporary.replace(self.real(name))
            except OSError:
                temporary.unlink(missing_ok=True)
                raise

        if self.told(name, act, data, *OTHERWISE):
            self.gone_from_handles(name)
            self.replaced(name, data)

    @rule(pick=picks, size=st.sampled_from((None, 16, 5000)))
    def remove(self, pick: int, size: int | None) -> None:
        """Remove it, and perhaps make it again."""
        name = self.some(pick)
        if name not in self.view and not self.is_foggy(name):
            return
        if not self.told(name, self.real(name).unlink, None, *OTHERWISE):
            return
        self.did("removed", name)
        if self.is_foggy(name):
            self.doubt(name)
        else:
            self.ledger.ended(self.view[name])
        self.view.pop(name, None)
        self.acted.add(name)
        self.gone_from_handles(name)
        self.check_listing()
        if size is not None:
            data = self.ledger.fresh("m", size)
            if self.told(name, lambda: self.write(name, data), data, *OTHERWISE):
                self.replaced(name, data)

    @precondition(lambda self: self.has_names)
    @rule(pick=picks, to=picks)
    def rename(self, pick: int, to: int) -> None:
        """Give it another name, also that of another file."""
        old, new = self.some(pick), self.some(to)
        if old not in self.view or not self.may_move(old, new):
            return
        foggy = self.is_foggy(old) or self.is_foggy(new)
        self.did("rename", old, "to", new)
        try:
            self.real(old).rename(self.real(new))
        except OSError as error:
            self.did("was told", errno.errorcode[error.errno or 0])
            weather = self.is_weather(error)
            if not weather and not (foggy and error.errno in OTHERWISE):
                raise
            if weather:
                self.all_in_doubt(old, new)
            return
        self.acted |= {old, new}
        if foggy:
            self.all_in_doubt(old, new)
        else:
            self.ledger.ended(self.view.get(new))
            self.view[new] = self.view.pop(old)
            self.ledger.saved(self.view[new], new)
        self.gone_from_handles(new)
        self.handles = [(fd, new if name == old else name) for fd, name in self.handles]
        self.check_name(new)
        self.check_listing()

    def all_in_doubt(self, old: str, new: str) -> None:
        """Note a rename between names of which at least one is not known for sure."""
        moved = self.view.pop(old, None)
        for data in self.ledger.at(old):
            if data.startswith(b"m") and len(self.ledger.tied(old)) == 1:
                self.ledger.moved(data, new)
            else:
                self.ledger.doubted(data)
        self.doubt_but(new, self.ledger.at(old))
        if moved is not None:
            self.ledger.revived(moved, new)
            self.view[new] = moved
        self.foggy |= {old, new}
        self.ledger.tie(old, new)
        for fd, held in self.handles:
            if held in {old, new}:  # which of the two it is cannot be told
                with contextlib.suppress(OSError):
                    os.close(fd)
        self.handles = [(fd, held) for fd, held in self.handles if held not in {old, new}]

    # -- descriptors that stay open --------------------------------------------------------------------------

    def gone_from_handles(self, name: str) -> None:
        self.handles = [(fd, None if held == name else held) for fd, held in self.handles]

    @rule(pick=picks)
    def hold(self, pick: int) -> None:
        """Open a file for writing, and keep it open."""
        if not self.view or len(self.handles) > MAX_HELD:
            return
        name = sorted(self.view)[pick % len(self.view)]

        def act() -> None:
            fd = os.open(self.real(name), os.O_RDWR)
            self.did("opened", name)
            self.handles.append((fd, name))

        self.told(name, act, None, *OTHERWISE)

    @rule(size=sizes, writes=st.booleans())
    def let_go(self, size: int, writes: bool) -> None:
        """Write to what was kept open, and close it."""
        if not self.handles:
            return
        fd, name = self.handles.pop(0)
        self.did("let go of", name, writes)
        data = self.ledger.fresh("m", size)
        failure: OSError | None = None
        try:
            if writes:
                os.ftruncate(fd, 0)
                os.pwrite(fd, data, 0)
                got = os.pread(fd, len(data) + 1, 0)
                assert got == data
        finally:
            try:
                os.close(fd)
            except OSError as error:
                failure = error
        if failure is not None:
            assert failure.errno == errno.ESTALE or self.is_weather(failure), failure
        if not writes or name is None:
            return
        if self.is_foggy(name):
            self.doubt(name)
        self.replaced(name, data)
