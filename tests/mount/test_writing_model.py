"""Random operations on a real mount of the local store against a dictionary: after each of them both say the same.

The model knows two kinds of places: the workflow itself, whose files are artifacts with a history of their own, and
trees in it. It is told only what the calls returned. The mount is ended and begun again in between, once as a person
does it and once by a kill.
"""

import contextlib
import errno
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.lab import Mounted
from tests.support.saving import history, killed, local_mount, mount_again

pytestmark = pytest.mark.fuse

TMP = "f.tmp"
NAMES = ("a", "b.txt", "c.md", "d e", "é", TMP)
DIRECTORIES = ("t", "u")
STEPS = 120

Place = tuple[str, ...]


@dataclass
class Model:
    """What should be there: directories, files by path, and what each file of the workflow has been, unless unknown."""

    directories: set[Place] = field(default_factory=lambda: {()})
    files: dict[Place, bytes] = field(default_factory=dict)
    past: dict[str, list[bytes]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=lambda: {TMP})

    def children(self, place: Place) -> set[str]:
        below = {path[len(place)] for path in (*self.directories, *self.files) if path[: len(place)] == place != path}
        return {name for name in below if (*place, name) in self.directories or (*place, name) in self.files}

    def save(self, path: Place, data: bytes) -> None:
        """Change a file; in the workflow that is a version, if it is other content."""
        self.files[path] = data
        if len(path) == 1:
            versions = self.past.setdefault(path[0], [])
            if not versions or versions[-1] != data:
                versions.append(data)

    def remove(self, path: Place) -> None:
        del self.files[path]

    def move(self, old: Place, new: Place) -> None:
        moved = {path: data for path, data in self.files.items() if path[: len(old)] == old}
        for path in moved:
            del self.files[path]
        self.directories = {new + p[len(old) :] if p[: len(old)] == old else p for p in self.directories}
        for path, data in moved.items():
            self.files[new + path[len(old) :]] = data

    def is_free_for(self, path: Place) -> bool:
        return path not in self.files and path not in self.directories


class Run:
    """One run: a mount, a model, and a source of chances."""

    def __init__(self, mount: Mounted, seed: int) -> None:
        self.mount = mount
        self.chance = random.Random(seed)
        self.model = Model()
        self.root = mount.path / f"w{seed}"
        self.root.mkdir()
        self.log: list[str] = []

    def real(self, path: Place) -> Path:
        return self.root.joinpath(*path)

    def some_directory(self) -> Place:
        return self.chance.choice(sorted(self.model.directories))

    def some_file(self) -> Place | None:
        return self.chance.choice(sorted(self.model.files)) if self.model.files else None

    def some_data(self) -> bytes:
        return self.chance.randbytes(self.chance.choice((0, 1, 10, 5000, 70_000, 300_000)))

    def fails(self, *numbers: int):
        @contextlib.contextmanager
        def context():
            with pytest.raises(OSError, match=r"\[Errno") as caught:
                yield
            assert caught.value.errno in numbers, (errno.errorcode[caught.value.errno or 0], self.log[-5:])

        return context()

    # -- operations ------------------------------------------------------------------------------------------

    def op_write(self) -> None:
        path = (*self.some_directory(), self.chance.choice(NAMES))
        data = self.some_data()
        if path in self.model.directories:
            with self.fails(errno.EISDIR):
                self.real(path).write_bytes(data)
            return
        self.real(path).write_bytes(data)
        self.model.save(path, data)

    def op_append(self) -> None:
        if path := self.some_file():
            data = self.some_data()
            with self.real(path).open("ab") as file:
                file.write(data)
            self.model.save(path, self.model.files[path] + data)

    def op_patch(self) -> None:
        if path := self.some_file():
            old, data = self.model.files[path], self.some_data()
            at = self.chance.randint(0, len(old) + 10)
            with self.real(path).open("r+b") as file:
                file.seek(at)
                file.write(data)
            new = old.ljust(at, b"\0")[:at] + data + old[at + len(data) :] if data else old
            self.model.save(path, new)

    def op_truncate(self) -> None:
        if path := self.some_file():
            size = self.chance.randint(0, 2 * len(self.model.files[path]) + 1)
            os.truncate(self.real(path), size)
            self.model.save(path, self.model.files[path][:size].ljust(size, b"\0"))

    def op_replace(self) -> None:
        """Save as careful programs do: a temporary name, renamed over."""
        if path := self.some_file():
            data = self.some_data()
            temporary = self.real((*path[:-1], f"{path[-1]}.tmp.{self.chance.randint(1, 9)}"))
            temporary.write_bytes(data)
            temporary.replace(self.real(path))
            self.model.save(path, data)

    def op_unlink(self) -> None:
        if path := self.some_file():
            self.real(path).unlink()
            self.model.remove(path)

    def op_mkdir(self) -> None:
        path = (*self.some_directory(), self.chance.choice(DIRECTORIES))
        if self.model.is_free_for(path):
            self.real(path).mkdir()
            self.model.directories.add(path)
        else:
            with self.fails(errno.EEXIST):
                self.real(path).mkdir()

    def op_rmdir(self) -> None:
        path = self.some_directory()
        if not path:
            return
        if self.model.children(path):
            with self.fails(errno.ENOTEMPTY):
                self.real(path).rmdir()
        else:
            self.real(path).rmdir()
            self.model.directories.remove(path)

    def op_rename_file(self) -> None:
        if not (old := self.some_file()):
            return
        new = (*self.some_directory(), self.chance.choice(NAMES))
        if new in self.model.directories or new == old:
            return
        data = self.model.files[old]
        if old[:-1] != new[:-1] and (len(old) == 1 or len(new) == 1 or old[0] != new[0]):
            if old[-1] == TMP:
                return  # it may be no part of any artifact yet
            self._rename_elsewhere(old, new)
            return
        replaces = new in self.model.files
        if TMP in {old[-1], new[-1]}:
            # Whether it was an artifact already when it was renamed is a matter of seconds.
            self.model.unknown |= {old[0], new[0]}
        self.real(old).rename(self.real(new))
        self.model.remove(old)
        if len(new) == 1 and not replaces:
            self.model.past[new[0]] = self.model.past.pop(old[0])
            if old[0] in self.model.unknown:
                self.model.unknown.add(new[0])
            self.model.files[new] = data
        else:
            self.model.save(new, data)

    def _rename_elsewhere(self, old: Place, new: Place) -> None:
        """Rename from one artifact to another: refused, but of what is on this machine alone until now."""
        try:
            self.real(old).rename(self.real(new))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        else:
            self.model.unknown |= {old[0], new[0]}
            data = self.model.files[old]
            self.model.remove(old)
            self.model.save(new, data)

    def op_rename_directory(self) -> None:
        old = self.some_directory()
        new = (*self.some_directory(), self.chance.choice(DIRECTORIES))
        if not old or new == old or new in self.model.files:
            return
        if new[: len(old)] == old:
            with self.fails(errno.EINVAL):
                self.real(old).rename(self.real(new))
        elif old[: len(new)] == new:
            with self.fails(errno.ENOTEMPTY):
                self.real(old).rename(self.real(new))
        elif new in self.model.directories and self.model.children(new):
            with self.fails(errno.ENOTEMPTY, errno.EXDEV):
                self.real(old).rename(self.real(new))
        elif (len(old) == 1) != (len(new) == 1) or (len(old) > 1 and old[0] != new[0]):
            with self.fails(errno.EXDEV):
                self.real(old).rename(self.real(new))
        else:
            self.real(old).rename(self.real(new))
            self.model.directories.discard(new)
            self.model.move(old, new)

    # -- comparing -------------------------------------------------------------------------------------------

    def step(self) -> None:
        operations = [getattr(self, name) for name in sorted(dir(self)) if name.startswith("op_")]
        weights = [3 if operation.__name__ in {"op_write", "op_append"} else 1 for operation in operations]
        (operation,) = self.chance.choices(operations, weights)
        self.log.append(operation.__name__)
        operation()
        place = self.some_directory()
        assert self.listed(place) == self.model.children(place), self.log[-5:]
        if path := self.some_file():
            assert self.real(path).read_bytes() == self.model.files[path], (path, self.log[-5:])
            assert self.real(path).stat().st_size == len(self.model.files[path]), (path, self.log[-5:])

    def listed(self, place: Place) -> set[str]:
        return set(os.listdir(self.real(place))) - {"by-id"}

    def compare(self, *, past: bool) -> None:
        """Compare everything; ``past``: the versions of the workflow's files, too."""
        for place in self.model.directories:
            assert self.listed(place) == self.model.children(place), (place, self.log[-9:])
        for path, data in self.model.files.items():
            assert self.real(path).read_bytes() == data, (path, self.log[-9:])
            if past and len(path) == 1 and path[0] not in self.model.unknown:
                found, saved = history(self.root, path[0]), iter(self.model.past[path[0]])
                assert found[-1] == data, (path, self.log)
                # Saves in a row become one version; none comes back, and none is out of order.
                assert all(version in saved for version in found), (path, self.log)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_random_operations_agree_with_a_dictionary(tmp_path_factory, seed: int):
    """Every listing, every byte and every errno, over a remount and a kill; versions are saves, in order."""
    with local_mount(tmp_path_factory.mktemp("m")) as mount:
        run = Run(mount, seed)
        for _ in range(STEPS):
            run.step()
        run.compare(past=True)
        mount.artifactfs("umount", str(mount.path))
        mount_again(mount)
        run.compare(past=True)
        for _ in range(STEPS):
            run.step()
        killed(mount)
        mount_again(mount)
        run.compare(past=False)
