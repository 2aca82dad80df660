"""Programs that make and remove names on mounts of the services: what is sent, and that nothing else is."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.desks import DESKS, Desk, desk
from tests.support.saves import NEW, OLD, Save, prepared
from tests.support.saving import fails, need, shell

pytestmark = pytest.mark.fuse

NOTHING: Counter[str] = Counter()


@pytest.fixture(scope="module", params=list(DESKS))
def at(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A service with a file for each test, mounted once; what it can do is asked before anybody counts."""
    with desk(request.param, tmp_path_factory.mktemp("names")) as made:
        folder, name = made.take()
        shell(f"rm {name}", folder)
        with made.asked():
            pass
        yield made


@pytest.mark.parametrize(
    "script",
    [
        "cp doc.md new-doc.md",
        'cp "$NEW" here-new-doc.md; mv here-new-doc.md new-doc.md',
        'mv "$NEW" new-doc.md',
        'curl -s -o new-doc.md "file://$NEW"',
        'cp "$NEW" new-doc.md.part; mv new-doc.md.part new-doc.md',
        ": > new-doc.md; sleep 0.2; echo x > new-doc.md",
        "(echo one; sleep 0.3; echo two) > new-doc.md",
        "vim -Nu NONE -es new-doc.md -c 'normal ihello' -c 'wq'",
        "emacs --batch -Q --eval '(progn (find-file \"new-doc.md\") (insert \"hello\") (save-buffer))' 2>&1",
        "echo 1 > .new-doc.md.swp; touch 4913; rm 4913; echo one > new-doc.md; rm .new-doc.md.swp",
    ],
)  # fmt: skip
def test_a_new_file_is_one_upload(at: Desk, tmp_path: Path, script: str):
    """Under its last name, with its last bytes; where no new file can be made, that is said."""
    folder, name = at.take()
    variables = prepared(tmp_path, Save("new", script), name)
    script, new = script.replace("doc.md", name), f"new-{name}"
    before = at.listed(folder)
    with at.asked() as (requests, names):
        if at.makes:
            shell(script, folder, **variables)
        else:
            fails(f"set -e; {script}", folder, **variables)
    if not at.makes:
        assert requests == NOTHING
        assert at.listed(folder) <= before | {f"{new}.part", f".{new}.swp"}
        return
    assert requests == at.created
    assert names <= at.named(name) | {new}
    at.becomes(folder, before | {new}, {name: OLD, new: (folder / new).read_text()})
    assert (folder / new).stat().st_size


@pytest.mark.parametrize("script", ["touch new-doc.md", ": > new-doc.md"])
def test_an_empty_file_is_there_or_refused(at: Desk, tmp_path: Path, script: str):
    """A file that stays empty is a file, or the program is told; a touched name is never lost in silence."""
    folder, name = at.take()
    new = f"new-{name}"
    script = script.replace("doc.md", name)
    with at.asked() as (requests, _):
        if at.makes:
            shell(script, folder)
        else:
            fails(f"set -e; {script}", folder)
    assert requests == (at.emptied if at.makes else NOTHING)
    assert (folder / new).exists() == at.makes


def test_mv_over_another_file_is_one_save_and_one_removal(at: Desk):
    """``mv b.md doc.md``, both listed: the target has the bytes, the other name is gone."""
    folder, name = at.take()
    other = f"b-{name}"
    if not at.makes:
        fails(f"set -e; echo 'new line' > {other}", folder)  # so there is nothing to be moved
        return
    shell(f"echo 'new line' > {other}", folder)
    with at.asked():
        pass
    before = at.listed(folder)
    with at.asked() as (requests, names):
        shell(f"mv {other} {name}", folder)
    assert requests == (at.saved if at.saved == at.removed else at.saved + at.removed)
    assert names <= at.named(name)
    at.becomes(folder, before - {other}, {name: NEW})


def test_sed_with_a_backup_keeps_both(at: Desk, tmp_path: Path):
    """``sed -i.bak``: the old bytes under a name that a person asked for, the new ones in the file.

    That name is a rename of the file: where its service has none, sed says so and changes nothing.
    """
    folder, name = at.take()
    before = at.listed(folder)
    with at.asked() as (requests, names):
        if at.renamed is not None:
            shell(f"sed -i.bak s/old/new/ {name}", folder)
        else:
            assert "cannot rename" in fails(f"sed -i.bak s/old/new/ {name}", folder)
    if at.renamed is None:
        assert requests == NOTHING
        at.becomes(folder, before, {name: OLD})
        return
    assert requests == (at.saved if at.saved == at.removed else at.renamed + at.created)
    assert names <= at.named(name) | {f"{name}.bak"}
    at.becomes(folder, before | {f"{name}.bak"}, {name: NEW, f"{name}.bak": OLD})


def test_gzip_is_an_upload_and_a_removal(at: Desk):
    """One new file, one name less; where bytes cannot be kept it fails, and the file stays."""
    folder, name = at.take()
    before = at.listed(folder)
    with at.asked() as (requests, names):
        if at.makes and not at.text_only:
            shell(f"gzip {name}", folder)
        else:
            fails(f"gzip {name}", folder)
    if at.text_only:
        assert requests == NOTHING
        at.becomes(folder, before, {name: OLD})
        return
    assert requests == (at.saved if at.saved == at.removed else at.created + at.removed)
    assert names <= at.named(f"{name}.gz")
    assert at.listed(folder) == before - {name} | {f"{name}.gz"}
    assert shell(f"zcat {name}.gz", folder) == OLD


def test_zip_adds_to_an_archive_once(at: Desk):
    """Made, and added to through a temporary name: one upload each time."""
    need("zip", "zip")
    folder, name = at.take()
    before = at.listed(folder)
    if at.text_only:
        with at.asked() as (requests, _):
            fails(f"zip -q {name}.zip {name}", folder)
            shell("rm -f zi??????", folder)  # zip leaves it, and says so
        assert requests == NOTHING
        at.becomes(folder, before, {name: OLD})
        return
    with at.asked() as (requests, names):
        shell(f"zip -q {name}.zip {name}", folder)
    assert requests == at.created
    assert names <= at.named(name) | {f"{name}.zip"}
    with at.asked() as (requests, names):
        shell(f'echo more >> "$NEW"; zip -qj {name}.zip "$NEW"', folder, NEW=str(at.mount.home / "more.txt"))
    assert requests == at.saved
    assert names <= at.named(name) | {f"{name}.zip"}
    assert at.listed(folder) == before | {f"{name}.zip"}
    assert shell(f"python3 -m zipfile -l {name}.zip", folder).count("\n") == 3


def test_an_unlinked_file_stays_readable_for_who_has_it_open(at: Desk):
    """Before and after the service has heard of it; it can still be written, and nothing comes of that."""
    folder, name = at.take()
    before = at.listed(folder)
    with (folder / name).open("r+") as file:
        with at.asked() as (requests, _):
            (folder / name).unlink()
            assert file.read() == OLD
        assert requests == at.removed
        file.seek(0)
        assert file.read() == OLD
        with at.asked() as (requests, _):
            file.write("more\n")
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            assert file.read() == OLD + "more\n"
    with at.asked() as (requests, _):
        pass
    assert requests == NOTHING
    assert at.listed(folder) == before - {name}


def test_who_reads_what_is_renamed_over_reads_on(at: Desk):
    """The old bytes to the end, past the publication too; who opens it then gets the new ones."""
    folder, name = at.take()
    before = at.listed(folder)
    with (folder / name).open() as reader:
        assert reader.read(4) == OLD[:4]
        with at.asked() as (requests, names):
            shell(f"sed -i s/old/new/ {name}", folder)
            assert reader.read() == OLD[4:]
        assert requests == at.saved
        assert names <= at.named(name)
        reader.seek(0)
        assert reader.read() == OLD
        assert (folder / name).read_text() == NEW
    at.becomes(folder, before, {name: NEW})


def test_what_a_writer_holds_that_is_renamed_over_is_no_save(at: Desk):
    """It writes on into a file without a name."""
    folder, name = at.take()
    before = at.listed(folder)
    with at.asked() as (requests, _), (folder / name).open("r+") as writer:
        writer.write("lost")
        writer.flush()
        shell(f"echo 'new line' > .{name}.aB3dE5; mv .{name}.aB3dE5 {name}", folder)
        writer.write(" and gone")
        writer.flush()
        writer.seek(0)
        assert writer.read() == "lost and gone"[:13]
    assert requests == at.saved
    at.becomes(folder, before, {name: NEW})
