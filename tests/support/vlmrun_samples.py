"""A store as VLM Run's agents would leave it: every type of object, made here byte by byte."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from artifactfs.store.catalog import Store
from artifactfs.store.rows import Run, Upload

# 2026-07-01T10:00:00Z, in ns.
DONE_NS = 1_782_900_000 * 10**9
RUN = "ff9aa0e3-c6c1-40ae-89e2-6c28e45c17a9"
RUNNING = "0b6f6a52-93f8-4c11-8a57-2f6f0f6a1c11"
FAILED = "5f1c0c39-4d6e-4f8b-9a86-b5be5a1c7d02"
FILE = "bea05e4d-1c47-4b0a-9a3b-6f6ac1d0a001"
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def png(width: int = 3, height: int = 2) -> bytes:
    """An RGB image: red and green grow with the place."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(
        b"\0" + bytes((40 * x, 60 * y, 7)[c] for x in range(width) for c in range(3)) for y in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def npy() -> bytes:
    """A float64 array of three numbers."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }"
    header += b" " * (64 - (10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + struct.pack("<3d", 1.0, 2.5, -3.0)


def pdf() -> bytes:
    """One empty page."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 72 72] >>",
    ]
    body, places = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, text)
    table = b"xref\n0 4\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    return body + table + b"trailer << /Size 4 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(body)


MP4 = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2mp41" + bytes(range(256)) * 400
MP3 = b"ID3\4\0\0\0\0\0\0" + b"\xff\xfb\x90\0" * 500
SPZ = gzip.compress(b"NGSP" + bytes(2000), mtime=0)
CLIP = b"\0\0\0\x18ftypmp42" + b"clip" * 5000
REPORT = "Größe,Wert\n1,2\n".encode()

CONTENT = {
    "img_a1b2c3": ("chart.png", "image/png", png()),
    "vid_0d0e01": ("cut.mp4", "video/mp4", MP4),
    "aud_0d0e02": ("voice.mp3", "audio/mpeg", MP3),
    "doc_0d0e03": ("letter.pdf", "application/pdf", pdf()),
    "recon_0d0e04": ("room.spz", "model/spz", SPZ),
    "arr_0d0e05": ("mask.npy", "application/octet-stream", npy()),
}
URL_OBJECT = "url_0d0e06"
RESPONSE = {"image": {"id": "img_a1b2c3"}, "text": "The cut is `vid_0d0e01`.", "doc_number": "doc_number"}


@dataclass
class Memory:
    """What a provider remembers, for as long as the test lasts."""

    facts: dict[str, object] = field(default_factory=dict)

    def get(self, key: str) -> object | None:
        return self.facts.get(key)

    def put(self, key: str, value: object) -> None:
        self.facts[key] = json.loads(json.dumps(value))

    def items(self, prefix: str) -> list[tuple[str, object]]:
        return [(key, value) for key, value in self.facts.items() if key.startswith(prefix)]


def add_object(store: Store, run: Run, art_id: str, name: str, media_type: str, data: bytes, phase: str = "") -> None:
    """Add a file to a run."""
    row = store.add_artifact(
        run.workflow_id, name, "file", artifact_id=art_id, run_id=run.id, media_type=media_type, phase=phase,
        created_at_ns=DONE_NS,
    )  # fmt: skip
    store.save_file(row.id, store.objects.put(data), len(data), created_by="agent", created_at_ns=DONE_NS)


def add_upload(store: Store, filename: str, data: bytes, *, upload_id: str = FILE, ready: bool = True) -> Upload:
    """Add an uploaded file."""
    upload = Upload(
        upload_id, filename, "assistants", len(data), store.objects.put(data), hashlib.md5(data).hexdigest(),
        DONE_NS + 123_456_000, ready,
    )  # fmt: skip
    store.put_upload(upload)
    return upload


def filled(root: Path) -> Store:
    """Return a store with three runs of two agents, all types of objects and one upload."""
    store = Store(root)
    blur = store.add_workflow("image/blur-image:v1", created_at_ns=DONE_NS)
    other = store.add_workflow("transcribe", created_at_ns=DONE_NS)
    run = Run("exec-000000000001", RUN, blur.id, "completed", DONE_NS, DONE_NS + 41 * 10**9, RESPONSE)
    store.add_run(run)
    store.add_run(Run("exec-000000000002", RUNNING, other.id, "running", DONE_NS + 10**9, None))
    store.add_run(Run("exec-000000000003", FAILED, other.id, "failed", DONE_NS + 2 * 10**9, DONE_NS + 3 * 10**9))
    for object_id, (name, media_type, data) in CONTENT.items():
        add_object(store, run, "art_" + object_id[-6:], name, media_type, data)
    link = f"/vlmrun/objects/{store.objects.put(CLIP)}/clip_final.mp4\n".encode()
    add_object(store, run, "art_" + URL_OBJECT[-6:], "clip_final.mp4", "text/uri-list", link)
    add_object(store, run, "art_0d0e07", "out dir/report é.csv", "text/csv", REPORT)
    add_object(store, run, "art_0d0e08", "notes.md", "text/markdown; charset=utf-8", b"# Notes\n", phase="review")
    add_upload(store, "scan ü.pdf", pdf())
    return store
