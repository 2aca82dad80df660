"""Names through the kernel: hostile titles, equal titles, and the names inside an archive."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from artifactfs.store.rows import TreeFile
from artifactfs.tree.names import encode
from tests.support import archives, demo_tree
from tests.support.lab import Lab, mounted

pytestmark = pytest.mark.fuse

HOSTILE = (
    "a/b", "..", ".", "", " ", "   ", "trailing ", " leading", "tab\tand\nnewline", "nul\0inside", "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07", "photo\u202egnp.exe", "fullwidth\uff0fslash", "Cafe\u0301", "Caf\u00e9", "README", "readme",
    "100% ^2F ^5E", "^empty", "^2E^2E", "CON", ".hidden", ".git", "x~", ".x.swp", "4913", "versions", "latest", "by-id",
    ".artifacts", ".artifactfs", "artifact.json", "art_123abc", "📦" * 70, "é" * 127 + "x.md", "x" * 255, "x" * 256,
    "日" * 85, "日" * 86 + ".txt", "x" * 300 + ".json", "same.md", "same.md", "same.md", "a~b", "-rf", "$(reboot)", "*",
    "name with ~abcdef12.md", "\u2028line", "\u200bzero",
)  # fmt: skip


@pytest.mark.parametrize("service", ["local", "syntropic137"])
def test_hostile_titles(service: str, lab: Lab, tmp_path: Path) -> None:
    """Each title gets a legal name of its own that leads to its artifact, whose artifact.json has it unchanged."""
    workflow = lab.store.add_workflow("hostile")
    made: dict[str, tuple[str, bytes]] = {}
    for number, title in enumerate(HOSTILE):
        artifact = lab.store.add_artifact(workflow.id, title, "file", created_at_ns=(10**9 + number) * 10**9)
        data = f"{number}\n".encode()
        lab.store.save_file(artifact.id, lab.store.objects.put(data), len(data), created_at_ns=artifact.created_at_ns)
        made[artifact.id if service == "local" else artifact.uuid] = (title, data)
    with mounted(tmp_path, demo_tree.sources(lab), names=(service,)) as mount:
        here = mount.path / "hostile"
        names = set(os.listdir(os.fsencode(here))) - {b"by-id"}
        assert all(1 <= len(name) <= 255 and not {0, 47} & set(name) for name in names)
        assert all(
            name.decode().isprintable() or "\u2028" in name.decode() or "\u200b" in name.decode() for name in names
        )
        contents = {(here / os.fsdecode(name)).read_bytes() for name in names}
        assert contents == {data for _, data in made.values()}
        assert len(names) == len(made)
        for identifier, (title, data) in made.items():
            facts = json.loads((here / identifier / "artifact.json").read_text())
            raw = facts["metadata"]["name" if service == "local" else "title"]
            assert raw == title.encode("utf-8", "backslashreplace").decode()
            (file,) = (here / identifier / "versions/v1").iterdir()
            assert file.read_bytes() == data
        plain = {title for title, _ in made.values() if title in {"README", "readme", ".git", "100% done", "-rf", "*"}}
        assert {title.encode() for title in plain} <= names


def test_two_artifacts_with_one_title(lab: Lab, tmp_path: Path) -> None:
    """The oldest keeps the plain name, the others are told apart by their id; the same after a remount."""
    workflow = lab.store.add_workflow("w")
    ids = []
    for number, time_s in ((1, 300), (2, 100), (3, 200)):
        artifact = lab.store.add_artifact(workflow.id, "report.md", "file", created_at_ns=time_s * 10**9)
        data = f"{number}".encode()
        lab.store.save_file(artifact.id, lab.store.objects.put(data), 1, created_at_ns=artifact.created_at_ns)
        ids.append(artifact.uuid)
    wanted = {"report.md": "2", f"report ~{ids[0][:8]}.md": "1", f"report ~{ids[2][:8]}.md": "3"}
    for _ in range(2):
        with mounted(tmp_path, demo_tree.sources(lab), names=("syntropic137",)) as mount:
            names = set(os.listdir(mount.path / "w")) - {"by-id"}
            assert {name: (mount.path / "w" / name).read_text() for name in names} == wanted


# -- archives --------------------------------------------------------------------------------------------------


def test_an_archive_reads_as_it_was_packed(lab: Lab, tmp_path: Path) -> None:
    """Empty directories, an x bit, a symlink, long, deep and non-ASCII names and odd times all read right."""
    deep = "/".join(["deep"] * 40) + "/ünïcödé ☂.txt"
    files = {"a.txt": b"alpha\n", "run.sh": b"#!/bin/sh\n", "n" * 200 + ".bin": bytes(range(256)), deep: b"x" * 70_000,
             "empty": b"", "big.bin": os.urandom(3_000_000), "日本語/файл.md": "текст\n".encode()}  # fmt: skip
    entries = [
        TreeFile(path, lab.store.objects.put(data), len(data), path == "run.sh", 1_700_000_000_123_456_789)
        for path, data in files.items()
    ]
    entries += [TreeFile("link", None, target="日本語/файл.md"), TreeFile("void/inner", None)]
    workflow = lab.store.add_workflow("w")
    tree = lab.store.add_artifact(workflow.id, "odd", "tree")
    lab.store.save_tree(tree.id, entries)
    with mounted(tmp_path, demo_tree.sources(lab), names=("vm0",)) as mount:
        here = mount.path / "artifacts/odd"
        assert {path: (here / path).read_bytes() for path in demo_tree.files_below(here)} == files
        assert os.readlink(here / "link") == "日本語/файл.md"
        assert (here / "link").read_text() == "текст\n"
        assert os.listdir(here / "void/inner") == []
        assert os.stat(here / "run.sh").st_mode & 0o777 == 0o755
        assert os.stat(here / "a.txt").st_mtime_ns == 1_700_000_000_123_456_789


SHOWN = (
    "dot_slash_prefixes", "hard_links", "hard_link_chain_of_thousands", "symlinks_inside", "symlinks_escaping",
    "format_pax", "format_gnu", "format_ustar_with_prefix", "format_v7", "long_names", "directories_after_their_files",
    "empty_directories", "several_gzip_members", "missing_end_blocks", "trailing_zeros_after_the_gzip", "duplicates",
    "file_then_directory", "setuid_and_huge_owners", "special_files", "dotdot_and_absolute_names", "empty_archive",
)  # fmt: skip
DAMAGED = ("header_checksum_wrong", "member_cut_short", "gzip_second_member_unreadable")


def test_unusual_archives_through_the_kernel(lab: Lab, tmp_path: Path) -> None:
    """``./`` prefixes, hard and symbolic links, long names, every tar dialect: the files, links and modes are right.

    A damaged archive is an error of its version, of nothing else.
    """
    workflow = lab.store.add_workflow("w")
    kept = lab.store.root / "archives"
    kept.mkdir()
    for name in (*SHOWN, *DAMAGED):
        tree = lab.store.add_artifact(workflow.id, name, "tree")
        data = name.encode()
        lab.store.save_tree(tree.id, [TreeFile("only", lab.store.objects.put(data), len(data))])
        version = lab.store.version(tree.id, 1)
        assert version is not None
        # What the server keeps of an archive it would have made; here somebody else packed it.
        (kept / f"{version.id}.tar.gz").write_bytes(archives.CASES[name]().data)
    with mounted(tmp_path, demo_tree.sources(lab), names=("vm0",)) as mount:
        for name in SHOWN:
            case, here = archives.CASES[name](), mount.path / "artifacts" / name
            links = {path for path in case.links if path not in case.broken}
            broken = {"/".join(map(encode, path.split("/"))) for path in case.broken}
            files = [path for path in demo_tree.files_below(here) if path not in broken]
            found = {path: (here / path).read_bytes() for path in files}
            assert all((here / path).read_bytes().startswith(b"artifactfs: ") for path in broken), name
            assert found == dict(case.files), name
            assert {path: os.readlink(here / path) for path in links} == {path: case.links[path] for path in links}, (
                name
            )
            assert all((here / path).is_dir() for path in case.dirs), name
            modes = {path: os.stat(here / path).st_mode & 0o7777 for path in case.files}
            assert set(modes.values()) <= {0o644, 0o755}, name
            if case.executable:
                assert {path for path, mode in modes.items() if mode == 0o755} == case.executable, name
        for name in DAMAGED:
            with pytest.raises(OSError, match="Input/output error"):
                os.listdir(mount.path / "artifacts" / name)
        assert len(os.listdir(mount.path / "artifacts")) == len(SHOWN) + len(DAMAGED) + 1
