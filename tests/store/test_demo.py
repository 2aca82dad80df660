"""The sample data: the same everywhere, quick to make, and real files."""

import base64
import gzip
import hashlib
import io
import itertools
import json
import re
import struct
import time
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from artifactfs import errors
from artifactfs.store import demo
from artifactfs.store.catalog import Store
from artifactfs.store.demo.dice import Dice
from artifactfs.store.rows import StoredArtifact

# Changes with the sample data, and with nothing else: it is the same on every machine.
DIGEST = "ab795582a8a921c26f826b61b0e0c60a05de005abe44739f3685aeee48851ea5"
TABLES = ("workflow", "run", "artifact", "version", "tree_file", "upload")
# An artifact's type in VLM Run's words, by the name its file has here.
PREFIXES = {
    "jpg": "img",
    "png": "img",
    "mp4": "vid",
    "mp3": "aud",
    "pdf": "doc",
    "spz": "recon",
    "npy": "arr",
    "url": "url",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[Store]:
    opened = Store(tmp_path_factory.mktemp("demo") / "store")
    demo.fill(opened)
    yield opened
    opened.close()


def digest_of(store: Store) -> str:
    """Return a hash of every row and of every object."""
    digest = hashlib.sha256()
    for table in TABLES:
        rows = [json.dumps(row) for row in store._all(f"SELECT * FROM {table}")]  # repr() changes with Unicode
        digest.update("\n".join(sorted(rows)).encode())
    for path in sorted(store.objects.root.glob("*/*")):
        digest.update(path.parent.name.encode() + path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def named(store: Store, name: str) -> StoredArtifact:
    return next(a for a in store.artifacts() if a.name == name)


def content(store: Store, name: str) -> bytes:
    artifact = named(store, name)
    version = store.version(artifact.id, artifact.current)
    assert version is not None
    return store.objects.read(version.sha256 or "")


def test_it_is_the_same_everywhere(store: Store):
    """Ids, times, texts and bytes are those that were recorded."""
    assert digest_of(store) == DIGEST


def test_it_is_quick_and_repeatable(tmp_path: Path, store: Store):
    """A second fill gives the same, within three seconds."""
    started = time.perf_counter()
    again = Store(tmp_path / "again")
    demo.fill(again)
    assert time.perf_counter() - started < 3
    assert digest_of(again) == digest_of(store)
    with pytest.raises(errors.AlreadyExists):
        demo.fill(again)
    assert len(again.artifacts()) == len(store.artifacts())
    again.close()


def test_objects_are_what_their_names_say(store: Store):
    """Every version and tree entry names an object that is here, of the size that the row gives."""
    for artifact in store.artifacts():
        for version in store.versions(artifact.id):
            files = [(f.sha256, f.size) for f in store.tree(artifact.id, version.seq) if f.sha256]
            for sha256, size in files or [(version.sha256 or "", version.size)]:
                assert store.objects.path(sha256).stat().st_size == size
    for path in store.objects.root.glob("*/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name + path.name


def test_everything_happens_in_2026(store: Store):
    """No time is the clock's."""
    first, last = 1767225600 * 10**9, 1798761600 * 10**9
    rows = store._all(
        "SELECT created_at FROM workflow UNION SELECT started_at FROM run UNION SELECT completed_at FROM run"
        " WHERE completed_at IS NOT NULL UNION SELECT created_at FROM artifact UNION SELECT updated_at FROM artifact"
        " UNION SELECT created_at FROM version UNION SELECT created_at FROM upload"
        " UNION SELECT mtime FROM tree_file WHERE mtime IS NOT NULL"
    )
    assert all(first <= at < last for (at,) in rows)


def test_ids_have_the_forms_that_services_use(store: Store):
    """Each id is unlike the others and of the form its kind has."""
    uuid = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}"
    assert all(re.fullmatch(r"art_[0-9a-f]{6}", a.id) and re.fullmatch(uuid, a.uuid) for a in store.artifacts())
    assert all(re.fullmatch(r"exec-[0-9a-f]{12}", r.id) and re.fullmatch(uuid, r.uuid) for r in store.runs())
    ids = [workflow.id for workflow in store.workflows()] + [upload.id for upload in store.uploads()]
    assert all(re.fullmatch(uuid, one) for one in ids)


def test_workflows_and_runs(store: Store):
    """Several workflows; runs that ended well, one that failed and one that is still going; phases in order."""
    assert {"market-research", "invoice-extraction", "video-review", "site-audit"} <= {
        w.name for w in store.workflows()
    }
    assert Counter(run.status for run in store.runs()) == {"completed": 6, "failed": 1, "running": 1}
    assert all((run.completed_at_ns is None) == (run.status == "running") for run in store.runs())
    done = next(r for r in store.runs(named(store, "review.md").workflow_id) if r.status == "completed")
    phases = [artifact.phase for artifact in store.artifacts_of_run(done.id)]
    assert list(dict.fromkeys(phases)) == ["plan", "research", "write", "review"]
    assert any(a.run_id is None for a in store.artifacts())


def test_responses_name_objects_that_the_run_left(store: Store):
    """Each reference is a type's prefix and the six digits of an artifact of that type in that run."""
    for run in store.runs():
        text = json.dumps(run.response)
        left = {a.id[4:]: a.name for a in store.artifacts_of_run(run.id)}
        found = re.findall(r"\b(img|vid|aud|doc|recon|arr|url)_([0-9a-f]{6})\b", text)
        assert (run.response is None) == (run.status != "completed")
        assert found or run.response is None
        for prefix, digits in found:
            assert PREFIXES[left[digits].rpartition(".")[2]] == prefix


def test_one_run_left_an_object_of_every_type(store: Store):
    """All seven types of VLM Run are in one run and in its response."""
    run = store.run(named(store, "clip.mp4").run_id or "")
    assert run is not None
    types = {PREFIXES.get(a.name.rpartition(".")[2]) for a in store.artifacts_of_run(run.id)}
    assert types - {None} == {"img", "vid", "aud", "doc", "recon", "arr", "url"}
    assert set(re.findall(r"([a-z]+)_[0-9a-f]{6}", json.dumps(run.response))) == types - {None}


def test_images_open(store: Store):
    """Pillow decodes every PNG and JPEG to its last row."""
    images = [a for a in store.artifacts() if a.media_type.startswith("image/")]
    assert {a.media_type for a in images} == {"image/png", "image/jpeg"}
    for artifact in images:
        version = store.versions(artifact.id)[0]
        with Image.open(io.BytesIO(store.objects.read(version.sha256 or ""))) as image:
            image.load()
            assert f"image/{(image.format or '').lower()}" == artifact.media_type
            assert len(image.convert("RGB").getcolors(1 << 20) or []) > 1


def test_pdfs_are_sound(store: Store):
    """The cross-reference table of each PDF points at its objects, and each stream is as long as it says."""
    pdfs = [a for a in store.artifacts() if a.media_type == "application/pdf"]
    assert len(pdfs) >= 3
    for artifact in pdfs:
        data = store.objects.read(store.versions(artifact.id)[0].sha256 or "")
        assert data.startswith(b"%PDF-1.4\n")
        start = int(data.rsplit(b"startxref\n", 1)[1].split()[0])
        table = data[start:].splitlines()
        assert table[0] == b"xref"
        for number, line in enumerate(table[3 : 2 + int(table[1].split()[1])], 1):
            assert data[int(line[:10]) :].startswith(f"{number} 0 obj\n".encode())
        for stream in re.finditer(rb"/Length (\d+) >>\nstream\n", data):
            assert data[stream.end() + int(stream[1]) :].startswith(b"endstream")


def test_sound_array_scan_and_video_have_their_formats(store: Store):
    """Silent MP3 frames, a numpy header, an SPZ inside gzip, MP4 boxes that add up to 64 MiB."""
    sound = content(store, "audio/narration.mp3")
    tag = 10 + (sound[8] << 7) + sound[9]
    assert sound[:3] == b"ID3"
    assert all(sound[at : at + 4] == b"\xff\xfb\x58\xc4" for at in range(tag, len(sound), 288))
    array = content(store, "data/motion.npy")
    length = struct.unpack("<H", array[8:10])[0]
    assert array[:8] == b"\x93NUMPY\x01\x00"
    assert (10 + length) % 64 == 0
    assert array[10 : 10 + length].endswith(b"\n")
    assert b"'shape': (94, 4)" in array[10 : 10 + length]
    assert len(array) == 10 + length + 94 * 4 * 4
    scan = gzip.decompress(content(store, "scan/printer.spz"))
    assert struct.unpack("<III", scan[:12]) == (0x5053474E, 2, 600)
    assert len(scan) == 16 + 600 * (9 + 1 + 3 + 3 + 3)
    video, at, boxes = content(store, "clip.mp4"), 0, []
    while at < len(video):
        size, kind = struct.unpack(">I4s", video[at : at + 8])
        boxes.append(kind)
        at += size
    assert (boxes, at, len(video)) == ([b"ftyp", b"moov", b"mdat"], 64 << 20, 64 << 20)


def test_the_link_leads_to_an_object(store: Store):
    """The url object holds a path on the server's own origin, of an object that is here."""
    link = content(store, "clip_final.url").decode().strip()
    found = re.fullmatch(r"/vlmrun/objects/([0-9a-f]{64})/clip_final\.mp4", link)
    assert found
    assert store.objects.read(found[1])[4:8] == b"ftyp"
    assert named(store, "clip_final.url").media_type == "text/uri-list"


def test_texts_tables_and_json_are_what_they_claim(store: Store):
    """Texts are UTF-8, CSV lines have equal numbers of cells, JSON parses, and an invoice adds up."""
    for artifact in store.artifacts():
        version = store.version(artifact.id, artifact.current)
        if not version or not version.sha256 or not artifact.media_type.startswith(("text/", "application/json")):
            continue
        text = store.objects.read(version.sha256).decode()
        if artifact.name.endswith(".csv"):
            assert len({line.count(",") for line in text.splitlines() if "blue" not in line}) == 1
        if artifact.name.endswith(".json"):
            json.loads(text)
    invoice = json.loads(content(store, "invoice.json"))
    net = sum(float(line.rpartition(",")[2]) for line in content(store, "lines.csv").decode().splitlines()[1:])
    assert abs(float(invoice["total"]) - net * 1.19) < 0.01


def test_histories(store: Store):
    """A text with twelve versions and a tree with five; each step changes something, and little."""
    changelog = store.versions(named(store, "CHANGELOG.md").id)
    assert [v.seq for v in changelog] == list(range(1, 13))
    texts = [store.objects.read(v.sha256 or "") for v in changelog]
    for before, after in itertools.pairwise(texts):
        added = Counter(after.splitlines()) - Counter(before.splitlines())
        assert not Counter(before.splitlines()) - Counter(after.splitlines())
        assert sum(added.values()) == 4
    report = named(store, "site-report")
    trees = [{f.path: f for f in store.tree(report.id, seq)} for seq in range(1, 6)]
    assert len(store.versions(report.id)) == 5
    for old, new in itertools.pairwise(trees):
        changed = [path for path in old.keys() & new.keys() if old[path].sha256 != new[path].sha256]
        assert changed
        assert len(changed) < len(new)
        assert old.keys() != new.keys()
    links = [f for f in trees[-1].values() if f.target is not None]
    assert [f"data/{f.target}" in trees[-1] for f in links] == [True]
    assert any(f.sha256 is None and f.target is None and f.path.count("/") == 2 for f in trees[-1].values())
    assert trees[-1]["serve.sh"].executable


def test_a_version_of_two_thousand_small_files(store: Store):
    """As many as the measurements want, in fifty directories."""
    crawl = named(store, "crawl-2026-05")
    files = store.tree(crawl.id, 1)
    assert len(files) == 2000
    assert len({f.path.rpartition("/")[0] for f in files}) == 50
    assert all(200 <= f.size <= 4096 for f in files)
    assert len({f.sha256 for f in files}) > 1990


def test_volumes_and_uploads(store: Store):
    """Two trees are volumes; three files were handed in, with the MD5 of their bytes."""
    volumes = [a for a in store.artifacts() if a.role == "volume"]
    assert {a.kind for a in volumes} == {"tree"}
    assert len(volumes) == 2
    assert len(store.uploads()) == 3
    for upload in store.uploads():
        data = store.objects.read(upload.sha256)
        assert (hashlib.md5(data).hexdigest(), len(data)) == (upload.md5, upload.size)


def test_names_that_test_a_file_system(store: Store):
    """Scripts of the world, a pair in both normal forms, and what cannot be a file name as it is."""
    names = [a.name for a in store.artifacts() if a.run_id is None]
    scripts = {unicodedata.name(c).split()[0] for name in names for c in name if c.isalpha()}
    assert {"CJK", "HIRAGANA", "ARABIC", "HEBREW", "CYRILLIC", "LATIN"} - scripts <= {"HIRAGANA"}
    forms = [name for name in names if name.startswith("Caf")]
    assert len(set(forms)) == 2
    assert len({unicodedata.normalize("NFC", name) for name in forms}) == 1
    assert {"Q3/Q4 comparison", "trailing space ", "..", ".draft ideas.md"} <= set(names)
    assert [len(name.encode()) for name in names if len(name.encode()) > 255] == [300]
    assert names.count("visit.md") == 2
    empty, script = named(store, "later.md"), named(store, "deploy-check.sh")
    assert store.versions(empty.id)[0].size == 0
    assert store.versions(script.id)[0].executable


def test_dice_fall_the_same_whatever_was_drawn_before():
    """The stream is that of SHAKE-256, and a name decides it."""
    first = hashlib.shake_256(b"artifactfs demo x 0").digest(4096)
    assert Dice("x").bytes(10) + Dice("x").bytes(0) == first[:10]
    dice = Dice("x")
    assert b"".join(dice.bytes(1000) for _ in range(4)) == first[:4000]
    assert base64.b64encode(Dice("y").bytes(6)) != base64.b64encode(first[:6])
