"""Writing through a real mount of the local store: what is kept and shown, what is refused and with which errno."""

import contextlib
import errno
import hashlib
import os
import re
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from artifactfs.store import demo
from artifactfs.store.catalog import Store
from tests.support.lab import Lab, Mounted, mounted, service_source
from tests.support.saving import SEEN_S, artifact_id, fails, flushed, history, listed, local_mount, shell, versions

pytestmark = pytest.mark.fuse


@pytest.fixture(scope="module")
def mount(tmp_path_factory):
    with local_mount(tmp_path_factory.mktemp("writing")) as mounted_:
        yield mounted_


@pytest.fixture
def folder(mount: Mounted, request: pytest.FixtureRequest) -> Path:
    """A workflow of the test's own."""
    made = mount.path / re.sub(r"[^A-Za-z0-9_ -]", ".", request.node.name)[:100]
    made.mkdir()
    return made


@contextlib.contextmanager
def refused(*numbers: int):
    """Expect one of these errnos."""
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        yield
    assert caught.value.errno in numbers, errno.errorcode.get(caught.value.errno or 0)


def eventually(is_so, within: float = SEEN_S) -> None:
    """Wait until something is so."""
    end = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)  # noqa: TID251 - no event loop here


# -- versions ------------------------------------------------------------------------------------------------


def test_a_version_is_there_as_soon_as_flush_returns(folder: Path):
    """Without a pause: the versions, `latest`, the metadata and the id itself know of a save in the next command."""
    for number in range(1, 6):
        (folder / "f").write_text(f"{number}\n")
        flushed(folder)
        shelf = folder / artifact_id(folder, "f")
        assert len(os.listdir(shelf / "versions")) == number
        assert os.readlink(shelf / "latest") == f"versions/v{number}"
        assert (shelf / "latest" / "f").read_text() == f"{number}\n"
        assert (shelf / "versions" / "v1" / "f").read_text() == "1\n"
    assert history(folder, "f") == [f"{number}\n".encode() for number in range(1, 6)]


def test_content_that_comes_back_is_a_version_of_its_own(folder: Path):
    """A, B, A are three versions, and each place shows the bytes it should."""
    for text in ("A", "B", "A", "B"):
        (folder / "f").write_text(text)
        assert (folder / "f").read_text() == text
        flushed(folder)
        assert (folder / "f").read_text() == text
    assert history(folder, "f") == [b"A", b"B", b"A", b"B"]


def test_a_tree_that_comes_back_shows_what_it_is(folder: Path):
    """The same for a tree, whose versions are kept laid out."""
    (folder / "t").mkdir()
    file = folder / "t" / "f"
    for text in ("A", "B", "A"):
        file.write_text(text)
        assert file.read_text() == text
        flushed(folder)
    file.unlink()
    assert not list((folder / "t").iterdir())
    flushed(folder)
    assert not list((folder / "t").iterdir())
    file.write_text("B")
    assert [(version / "f").read_text() if (version / "f").exists() else None for version in versions(folder, "t")] == [
        None, "A", "B", "A", None, "B",
    ]  # fmt: skip


def test_the_inode_of_a_file_outlives_its_save(folder: Path):
    """Number, size and time are the same before and after the close, and after the kernel has asked again."""
    path = folder / "f"
    path.write_text("one")
    number = path.stat().st_ino
    with path.open("r+") as file:
        file.write("four!")
        file.flush()
        during = os.stat(file.fileno())
    assert during.st_ino == number
    time.sleep(1.5)  # noqa: TID251 - longer than the kernel believes a name
    os.listdir(folder)
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (number, 5, during.st_mtime_ns)


def test_a_reader_that_stays_sees_what_is_appended_and_does_not_delay_the_save(folder: Path):
    """As `tail -f`: the file is saved although somebody still reads it, and the reader gets the new bytes."""
    path = folder / "log"
    path.write_text("first\n")
    flushed(folder)
    with path.open() as reader:
        assert reader.read() == "first\n"
        for number in range(3):
            shell(f"echo {number} >> log", folder)
            assert reader.read() == f"{number}\n"
            flushed(folder)
        assert len(history(folder, "log")) == 4


def test_a_removed_file_stays_readable_for_who_has_it_open(folder: Path):
    """A published file, a new one and one that is being written, each removed and made again while open."""
    path = folder / "f"
    path.write_text("one")
    with path.open() as published:
        path.unlink()
        path.write_text("two")
        with path.open("r+") as edited:
            edited.write("TWO!")
            edited.flush()
            path.unlink()
            with path.open("w+") as new:
                new.write("three")
                new.flush()
                path.unlink()
                assert not path.exists()
                new.seek(0)
                assert new.read() == "three"
                new.write(" more")
            edited.seek(0)
            assert edited.read() == "TWO!"
        assert published.read() == "one"
        assert os.fstat(published.fileno()).st_size == 3
    assert listed(folder) == set()


def test_removed_and_made_again_is_the_same_artifact(folder: Path):
    """`rm`, then a new file of the name: the next version; after `rm` alone the versions are still addressable."""
    path = folder / "f"
    path.write_text("one")
    flushed(folder)
    identifier = artifact_id(folder, "f")
    path.unlink()
    assert (folder / identifier / "versions" / "v1" / "f").read_text() == "one"
    path.write_text("two")
    assert artifact_id(folder, "f") == identifier
    assert history(folder, "f") == [b"one", b"two"]


def test_a_renamed_file_keeps_its_history(folder: Path, mount: Mounted):
    """`mv` within and between workflows renames the artifact; over another file it becomes that one's next version."""
    (folder / "a.txt").write_text("A")
    (folder / "b.txt").write_text("B")
    flushed(folder)
    identifier = artifact_id(folder, "a.txt")
    (folder / "a.txt").rename(folder / "c.txt")
    assert artifact_id(folder, "c.txt") == identifier
    (folder / "c.txt").write_text("A2")
    assert history(folder, "c.txt") == [b"A", b"A2"] or versions(folder, "c.txt")
    (folder / "c.txt").rename(folder / "b.txt")
    assert history(folder, "b.txt") == [b"B", b"A2"]
    assert listed(folder) == {"b.txt"}
    other = mount.path / "other workflow"
    other.mkdir()
    identifier = artifact_id(folder, "b.txt")
    flushed(folder)
    (folder / "b.txt").rename(other / "d.txt")
    flushed(mount.path)
    assert (listed(folder), listed(other)) == (set(), {"d.txt"})
    assert artifact_id(other, "d.txt") == identifier


def test_a_file_that_is_being_written_can_be_renamed(folder: Path):
    """What the writer writes after the rename is in the file under its new name; in a workflow and in a tree."""
    (folder / "t").mkdir()
    for place in (folder, folder / "t"):
        (place / "a").write_text("old")
        flushed(folder)
        with (place / "a").open("r+") as writer:
            writer.write("new")
            writer.flush()
            (place / "a").rename(place / "b")
            writer.write(" and more")
        assert (place / "b").read_text() == "new and more"
        flushed(folder)
        assert (place / "b").read_text() == "new and more"
        assert not (place / "a").exists()


def test_a_renamed_directory_takes_everything_along(folder: Path):
    """Open files, a shell inside, and saves right after it: all at the new place, nothing left at the old one."""
    (folder / "t" / "old" / "deep").mkdir(parents=True)
    (folder / "t" / "old" / "deep" / "f").write_text("one")
    inside = os.open(folder / "t" / "old" / "deep", os.O_RDONLY)
    try:
        with (folder / "t" / "old" / "deep" / "f").open("r+") as writer:
            writer.write("two")
            writer.flush()
            (folder / "t" / "old").rename(folder / "t" / "new")
            assert (folder / "t" / "new" / "deep" / "f").read_text() == "two"
            writer.write("!")
        (folder / "t" / "new" / "deep" / "g").write_text("beside")
        assert sorted(os.listdir(f"/proc/self/fd/{inside}")) == ["f", "g"]
    finally:
        os.close(inside)
    assert shell("find t | sort", folder).split() == ["t", "t/new", "t/new/deep", "t/new/deep/f", "t/new/deep/g"]
    assert (folder / "t" / "new" / "deep" / "f").read_text() == "two!"
    flushed(folder)
    assert shell("find t | sort", folder).split() == ["t", "t/new", "t/new/deep", "t/new/deep/f", "t/new/deep/g"]
    (folder / "t").rename(folder / "tree")
    assert (folder / "tree" / "new" / "deep" / "g").read_text() == "beside"
    (folder / "tree" / "new" / "deep" / "g").rename(folder / "tree" / "g")
    with (folder / "tree" / "g").open("a") as more:
        more.write("!")
    assert (folder / "tree" / "g").read_text() == "beside!"
    assert not (folder / "tree" / "new" / "deep" / "g").exists()


def test_directories_of_a_tree(folder: Path):
    """Mkdir in a workflow makes a tree, below it directories; rmdir of empty ones only; rm -r of all."""
    tree = folder / "t"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "f").write_text("x")
    with refused(errno.ENOTEMPTY):
        (tree / "a").rmdir()
    with refused(errno.ENOTEMPTY):
        tree.rmdir()
    (tree / "a" / "b" / "f").unlink()
    assert os.listdir(tree / "a") == ["b"]
    (tree / "a" / "b").rmdir()
    assert os.listdir(tree) == ["a"]
    (tree / "x").mkdir()
    for number in range(20):
        (tree / "x" / f"f{number}").write_text(str(number))
    shell("rm -r t", folder)
    assert listed(folder) == set()
    folder.rmdir()
    assert not folder.exists()


def test_execute_bits_are_kept(folder: Path):
    """Of a file that is made executable, and of one that was made so after its last save and is saved again."""
    shell(
        "umask 022; printf '#!/bin/sh\\necho hi\\n' > run.sh; chmod +x run.sh; cp run.sh copy.sh; echo exit >> run.sh",
        folder,
    )
    for name in ("copy.sh", "run.sh"):
        assert (versions(folder, name)[-1] / name).stat().st_mode & stat.S_IXUSR, name
        assert (folder / name).stat().st_mode & stat.S_IXUSR


def test_a_large_file_is_whole(folder: Path):
    """64 MiB through write, and a megabyte in its middle changed: the bytes are what was written."""
    block = hashlib.sha256(b"x").digest() * 32768
    with (folder / "big").open("wb") as file:
        for _ in range(64):
            file.write(block)
    flushed(folder)
    with (folder / "big").open("r+b") as file:
        file.seek(32 << 20)
        file.write(b"y" * (1 << 20))
    expected = hashlib.sha256(block * 32 + b"y" * (1 << 20) + block * 31).hexdigest()
    assert hashlib.sha256((folder / "big").read_bytes()).hexdigest() == expected
    assert [version.stat().st_size for version in (v / "big" for v in versions(folder, "big"))] == [64 << 20] * 2


def test_many_processes_write_at_once(folder: Path):
    """Eight programs with twenty files each, and eight appending to one: nothing is lost."""
    shell(
        "for p in $(seq 8); do (for n in $(seq 20); do echo $p.$n > f.$p.$n; echo $p.$n >> all; done) & done; wait",
        folder,
    )
    expected = {f"{p}.{n}" for p in range(1, 9) for n in range(1, 21)}
    assert {(folder / f"f.{name}").read_text().strip() for name in expected} == expected
    assert set((folder / "all").read_text().split()) == expected


def test_two_writers_of_one_file_share_it(folder: Path):
    """Opened twice before anything is written: both change the same bytes, and the last close makes the one version."""
    (folder / "f").write_text("0123456789")
    flushed(folder)
    with (folder / "f").open("r+b", buffering=0) as one, (folder / "f").open("r+b", buffering=0) as other:
        one.write(b"AB")
        other.seek(4)
        other.write(b"CD")
        one.seek(0)
        assert one.read() == b"AB23CD6789"
    assert history(folder, "f") == [b"0123456789", b"AB23CD6789"]


# -- names that stay here ------------------------------------------------------------------------------------


def test_a_passing_name_is_saved_after_a_while(folder: Path, mount: Mounted):
    """`poetry.lock` looks like something about to be renamed, but it is a file: saved when it stays."""
    (folder / "poetry.lock").write_text("locked")
    assert (folder / "poetry.lock").read_text() == "locked"
    (row,) = [row for row in mount.status()["pending"] if "poetry.lock" in row["path"]]
    assert row["next_try_s"] > 3
    assert history(folder, "poetry.lock") == [b"locked"]


def test_a_dropping_is_here_and_nowhere_else(folder: Path):
    """What editors leave behind can be used as any file, and is no artifact."""
    shell("echo x > .f.swp; echo y > 'f~'; mv 'f~' 'g~'; cat .f.swp 'g~'; chmod 600 .f.swp; ls -la > /dev/null", folder)
    assert listed(folder) == {".f.swp", "g~"}
    assert not list((folder / "by-id").iterdir())
    flushed(folder)
    assert not list((folder / "by-id").iterdir())
    shell("mv 'g~' g", folder)
    assert history(folder, "g") == [b"y\n"]
    with refused(errno.ENOTEMPTY):
        folder.rmdir()
    shell("rm .f.swp g", folder)
    folder.rmdir()


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["workflow", "tree"])
def test_names_that_cannot_be_kept(folder: Path, place: str):
    """Over 255 bytes ENAMETOOLONG; what could not be given back as it was typed, EILSEQ; 255 bytes are fine."""
    where = folder if place == "workflow" else folder / "t"
    where.mkdir(exist_ok=True)
    for name in ("n" * 255, "é" * 127 + "x", "名" * 85):
        (where / name).write_text("x")
        assert (where / name).read_text() == "x"
        (where / name).unlink()
    for name in ("n" * 256, "é" * 128, "名" * 86):
        for call in (Path.read_text, Path.mkdir, Path.unlink, Path.touch):
            with refused(errno.ENAMETOOLONG):
                call(where / name)
    (where / "f").write_text("x")
    for illegal in (
        b"bad \xff byte",
        b"trailing space ",
        b"tab\tinside",
        b"bidi \xe2\x80\xae",
        b"esc\x1b[31m",
        b"caret ^41",
    ):
        path = os.path.join(os.fsencode(where), illegal)
        with refused(errno.EILSEQ):
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        with refused(errno.EILSEQ):
            os.mkdir(path)
        with refused(errno.EILSEQ):
            os.rename(os.fsencode(where / "f"), path)
    assert os.statvfs(where).f_namemax == 255


def test_names_of_the_tree_itself_are_not_given_away(folder: Path):
    """A workflow takes no file called as its own entries, nor as an artifact id."""
    (folder / "f").write_text("x")
    for name in ("latest", ".artifactfs", "art_123abc"):
        for call in (Path.touch, Path.mkdir, (folder / "f").rename):
            with refused(errno.EILSEQ):
                call(folder / name)
    for name in ("by-id", ".artifacts"):
        with refused(errno.EEXIST):
            (folder / name).mkdir()
        with refused(errno.EILSEQ, errno.EISDIR):
            (folder / "f").rename(folder / name)
    (folder / "t").mkdir()
    (folder / "t" / "latest").write_text("in a tree any name is free")
    assert listed(folder) == {"f", "t"}


def test_the_past_is_read_only(folder: Path):
    """Nothing below an artifact's id can be changed."""
    (folder / "f").write_text("one")
    (folder / "t" / "d").mkdir(parents=True)
    (folder / "t" / "d" / "f").write_text("one")
    past = versions(folder, "f")[0]
    for path in (past / "f", versions(folder, "t")[-1] / "d" / "f", past.parent.parent / "artifact.json"):
        for call in (
            lambda p: p.write_text("x"), lambda p: os.truncate(p, 0), lambda p: p.open("a").close(), os.unlink,
            lambda p: p.chmod(0o600), os.utime, lambda p: p.rename(p.with_name("g")),
            lambda p: p.with_name("new").touch(), lambda p: p.with_name("new").mkdir(),
            lambda p: (folder / "f").rename(p.with_name("new")), lambda p: p.rename(folder / "new"),
        ):  # fmt: skip
            with refused(errno.EROFS):
                call(path)
    shelf = folder / ".artifacts" / past.parent.parent.name
    for directory in (past, past.parent, shelf, shelf.parent, versions(folder, "t")[-1] / "d"):
        with refused(errno.EROFS, errno.ENOTEMPTY):
            directory.rmdir()
        with refused(errno.EROFS):
            os.utime(directory)
    with refused(errno.EROFS):
        (folder / "by-id").unlink()
    assert (history(folder, "f"), (folder / "f").read_text()) == ([b"one"], "one")


def test_the_errno_of_each_refusal(folder: Path, mount: Mounted, tmp_path: Path):
    """One line a case, as pjdfstest asks them of any filesystem."""
    (folder / "f").write_text("x")
    (folder / "g").write_text("x")
    (folder / "d" / "sub").mkdir(parents=True)
    (folder / "d" / "sub" / "f").write_text("x")
    (folder / "e").mkdir()
    flushed(folder)
    f, d = folder / "f", folder / "d"
    cases: list[tuple[int, Callable[[], object]]] = [
        (errno.ENOENT, (folder / "none").read_text),
        (errno.ENOENT, (folder / "none").unlink),
        (errno.ENOENT, (folder / "none").rmdir),
        (errno.ENOENT, lambda: (folder / "none").rename(folder / "x")),
        (errno.ENOENT, (folder / "none" / "x").touch),
        (errno.EEXIST, f.mkdir),
        (errno.EEXIST, d.mkdir),
        (errno.EEXIST, lambda: os.open(f, os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
        (errno.ENOTDIR, (f / "x").touch),
        (errno.ENOTDIR, f.rmdir),
        (errno.ENOTDIR, lambda: d.rename(f)),
        (errno.EISDIR, lambda: d.open("w")),
        (errno.EISDIR, d.unlink),
        (errno.EISDIR, lambda: f.rename(d)),
        (errno.EISDIR, lambda: os.truncate(d, 0)),
        (errno.ENOTEMPTY, d.rmdir),
        (errno.ENOTEMPTY, lambda: (folder / "e").rename(d)),
        (errno.EINVAL, lambda: d.rename(d / "sub" / "d")),
        (errno.EINVAL, lambda: os.truncate(f, -1)),
        (errno.EPERM, lambda: os.symlink("f", folder / "s")),
        (errno.EPERM, lambda: os.link(f, folder / "l")),
        (errno.EPERM, lambda: os.mkfifo(folder / "fifo")),
        (errno.EPERM, lambda: folder.rename(mount.path / "another name")),
        (errno.EPERM, (mount.path / "a file needs a workflow").touch),
        (errno.EXDEV, lambda: (d / "sub" / "f").rename(folder / "x")),
        (errno.EXDEV, lambda: f.rename(d / "f")),
        (errno.EXDEV, lambda: (d / "sub").rename(folder / "e" / "sub")),
        (errno.EXDEV, lambda: f.rename(tmp_path / "f")),
        (errno.EROFS, (mount.path / ".artifactfs" / "x").touch),
        (errno.EROFS, lambda: (mount.path / ".artifactfs" / "README").write_text("x")),
    ]
    for number, call in cases:
        with refused(number):
            call()
    program = (
        "import ctypes, sys; c = ctypes.CDLL(None, use_errno=True);"
        " c.renameat2(-100, b'f', -100, b'g', int(sys.argv[1])); print(ctypes.get_errno())"
    )
    for flags, number in ((1, errno.EEXIST), (2, errno.EINVAL), (4, errno.EINVAL)):
        assert shell(f'"{sys.executable}" -c "$PROGRAM" {flags}', folder, PROGRAM=program) == f"{number}\n"
    assert listed(folder) == {"f", "g", "d", "e"}


def test_a_mount_can_be_read_only(tmp_path: Path):
    """With `read-only` every change is EROFS, at the top and inside, in every service and the local store."""
    store = Store(tmp_path / "served")
    demo.fill(store)
    with Lab(store) as lab:
        bases = lab.bases()
        names = ("vm0", "syntropic137", "vlmrun")
        sources = {name: service_source(name, bases[name]) for name in names}
        sources["mine"] = {"type": "local", "path": str(tmp_path / "served")}
        read_only = "[mount]\nread-only = true\n"
        with mounted(tmp_path, sources, names=(*names, "mine"), extra_config=read_only) as mount:
            for name in (*names, "mine"):
                inside = shell(f"find {name} -type f | head -n 1", mount.path).strip()
                assert inside, name
                for place in (name, os.path.dirname(inside)):
                    for script in ("echo x > '{}/new'", "mkdir '{}/new'", "touch '{}/new'", "ln -s a '{}/new'"):
                        assert "Read-only" in fails(script.format(place), mount.path), script
                for script in ("echo x > '{}'", "echo x >> '{}'", "rm -f '{}'", "mv '{}' '{}.new'", "touch '{}'",
                               "chmod 600 '{}'", "truncate -s 0 '{}'", "mv '{}' mine/x", "rm -r \"$(dirname '{}')\"",
                               "mv \"$(dirname '{}')\" \"$(dirname '{}').new\""):  # fmt: skip
                    said = fails(script.replace("{}", inside), mount.path)
                    assert "Read-only" in said or (script.startswith("mv") and "cannot" in said), (script, said)
            for script in ("mkdir new", "touch new", "mv mine new", "rmdir mine"):
                assert "Read-only" in fails(script, mount.path), script
    store.close()


# -- two mounts of one store ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two mounts of one store."""
    base = tmp_path_factory.mktemp("pair")
    for name in ("one", "two"):
        (base / name).mkdir()
    with local_mount(base / "one", store=base / "store") as one, local_mount(base / "two", store=base / "store") as two:
        yield one, two


def test_two_mounts_see_each_others_saves(pair):
    """New files, saves, removals, and what happens in a tree in which a shell stands, within a moment."""
    one, two = pair[0].path / "w", pair[1].path / "w"
    one.mkdir()
    eventually(two.is_dir)
    (one / "f").write_text("first")
    eventually((two / "f").exists)
    assert (two / "f").read_text() == "first"
    (one / "f").write_text("second!")
    eventually(lambda: (two / "f").read_text() == "second!")
    (two / "f").write_text("third")
    eventually(lambda: (one / "f").read_text() == "third")
    assert history(one, "f") == [b"first", b"second!", b"third"]
    (one / "t").mkdir()
    eventually((two / "t").is_dir)
    inside = os.open(two / "t", os.O_RDONLY)
    try:
        (one / "t" / "x").write_text("x")
        eventually(lambda: os.listdir(f"/proc/self/fd/{inside}") == ["x"])
    finally:
        os.close(inside)
    (two / "f").unlink()
    eventually(lambda: not (one / "f").exists())


def test_a_save_means_the_file_as_it_is_now(pair):
    """Right after the other mount's save, before this one's listing is renewed: appended to that, no conflict."""
    one, two = pair[0].path / "now", pair[1].path / "now"
    one.mkdir()
    (one / "f").write_text("one\n")
    flushed(one)
    eventually((two / "f").exists)
    for number in range(5):
        shell(f"echo {number}1 >> f", one)
        flushed(one)
        shell(f"echo {number}2 >> f", two)
        flushed(two)
    expected = "one\n" + "".join(f"{number}1\n{number}2\n" for number in range(5))
    eventually(lambda: (one / "f").read_text() == expected and (two / "f").read_text() == expected)
    assert listed(two) == {"f"}


def test_a_save_that_comes_too_late_is_kept_beside(pair):
    """Opened here, saved there, closed here: both are kept, in a workflow and in a tree, and `errors` says so."""
    one, two = pair[0].path / "late", pair[1].path / "late"
    (one / "t").mkdir(parents=True)
    for place in (".", "t"):
        (one / place / "f.md").write_text("base")
        eventually((two / place / "f.md").exists)
        with (two / place / "f.md").open("w") as late:
            late.write("late")
            late.flush()
            (one / place / "f.md").write_text("early")
            flushed(one)
        eventually(lambda place=place: (two / place / "f.md").read_text() == "early")
        (kept,) = [path for path in (two / place).iterdir() if "conflict" in path.name]
        assert re.fullmatch(r"f \(conflict \d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d\)\.md", kept.name)
        assert kept.read_text() == "late"
    assert "kept as" in (pair[1].path / ".artifactfs" / "errors").read_text()


def test_one_name_made_in_two_mounts_at_once(pair):
    """Neither overwrites the other."""
    one, two = pair[0].path / "both", pair[1].path / "both"
    one.mkdir()
    eventually(two.is_dir)
    with (one / "f").open("w") as first, (two / "f").open("w") as second:
        first.write("first")
        second.write("second")
    eventually(lambda: len(listed(one)) == 2 and len(listed(two)) == 2)
    assert {path.read_text() for path in one.iterdir() if path.name != "by-id"} == {"first", "second"}


def test_flush_knows_of_what_was_closed_a_moment_ago(folder: Path):
    """The kernel tells of a close after it; an empty file is made durable only then, and is waited for too."""
    (folder / "tree").mkdir()
    for number in range(25):
        for place in (folder, folder / "tree"):
            (place / f"empty {number}").touch()
            flushed(folder)
    assert len(listed(folder)) == 26
    assert len(listed(versions(folder, "tree")[-1])) == 25
