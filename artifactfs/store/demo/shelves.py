"""What belongs to no run: files with a past, trees, volumes, uploads, and names that test a file system."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from artifactfs.store.demo import documents, handbook, media
from artifactfs.store.demo.dice import Dice, uuid_of
from artifactfs.store.demo.filler import at
from artifactfs.store.demo.runs import GOODS, euros
from artifactfs.store.rows import TreeFile, Upload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from artifactfs.store.demo.filler import Filler
    from artifactfs.store.rows import Workflow

DAYS = ("2026-04-22", "2026-04-29", "2026-05-06", "2026-05-13", "2026-05-20")
CRAWL_DIRECTORIES = 50
CRAWL_FILES = 40
# Bytes that UTF-8 text of a title may need; above what any file system takes as a name.
LONG_NAME = 300

NAMES = (
    ("議事録 五月.md", "# 議事録\n\n次回はカタログの件。\n"),
    ("ملاحظات الميدان.txt", "ملاحظات من زيارة المستودع.\n"),
    ("סיכום ביקור.txt", "סיכום הביקור במחסן.\n"),
    ("Отчёт о поездке.md", "# Отчёт\n\nСклад «Север», три принтера, один молчит.\n"),  # noqa: RUF001 - Cyrillic is meant
    ("📦 packing list 🏷️.txt", "tape\nlabels, blue roll\npatience\n"),
    ("Café Zoë.txt", "Composed: one code point a letter.\n"),
    ("Cafe\u0301 Zoe\u0308.txt", "Decomposed: letters and combining accents.\n"),
    ("Q3/Q4 comparison", "Q3 was slow. Q4 was slower, and on purpose.\n"),
    ("trailing space ", "The name ends in a space.\n"),
    (".draft ideas.md", "- labels that tell how cold they got\n"),
    ("..", "Two dots, as somebody typed them.\n"),
    ("100% done.txt", "A percent sign is a percent sign.\n"),
    ("tab\tand\nnewline.txt", "The name holds a tab and a line break.\n"),
    ("photo\u202egnp.exe", "The name tries to look like another.\n"),
    ("README", "No extension, known everywhere.\n"),
    ("readme", "The same letters, small.\n"),
)


def fill_product_docs(fill: Filler) -> None:
    """The files of a team, one of them with twelve versions."""
    workflow = fill.workflow("product-docs", "2026-01-13 09:00", "")
    entries = [f"\n## {version}\n\n{day}. {text}\n" for version, day, text in handbook.CHANGES]
    past = [("2026-01-13 09:30", "user", "start", handbook.CHANGELOG_HEAD)]
    for number, (version, day, _) in enumerate(handbook.CHANGES, 1):
        text = handbook.CHANGELOG_HEAD + "".join(reversed(entries[:number]))
        past.append((f"{day} 16:00", "agent" if number % 3 == 0 else "user", f"release {version}", text))
    fill.history(workflow, "CHANGELOG.md", past)
    fill.file(workflow, "runbook.md", handbook.RUNBOOK, "2026-01-20 10:00")
    fill.file(workflow, "onboarding.md", handbook.ONBOARDING, "2026-02-02 11:00")
    fill.file(workflow, "decision-0007.md", handbook.DECISION, "2026-02-18 17:30")
    fill.file(workflow, "minutes-2026-05-06.md", handbook.MINUTES, "2026-05-06 12:00")
    fill.file(workflow, "incident-2026-04-30.md", handbook.INCIDENT, "2026-05-01 09:00")
    fill.file(workflow, "deploy-check.sh", handbook.DEPLOY_CHECK, "2026-02-24 14:00", executable=True)
    fill.file(workflow, "VERSION", "0.6.0\n", "2026-05-11 16:00")
    fill.file(workflow, "later.md", "", "2026-05-12 08:00")
    fill.file(workflow, "logo.png", media.bar_chart([2, 5, 3], width=96, height=96), "2026-01-15 15:00")


def fill_field_notes(fill: Filler) -> None:
    """Names in several scripts, and names that must be encoded to be names at all."""
    workflow = fill.workflow("field-notes ✎", "2026-03-02 09:00", "Notes from visits, as people named them.")
    for number, (name, text) in enumerate(NAMES):
        fill.file(workflow, name, text, f"2026-03-{number + 3:02d} 10:00")
    words = "what we heard at the depot and want to remember "
    stem = (words * LONG_NAME)[: LONG_NAME - len(".md")]
    fill.file(workflow, f"{stem}.md", "The name has 300 bytes.\n", "2026-03-27 10:00")
    for number in (1, 2):
        text = f"Visit {number}: same title, another day.\n"
        fill.file(workflow, "visit.md", text, f"2026-03-{27 + number} 10:00", label=str(number))


def fill_trees(fill: Filler, workflow: Workflow) -> None:
    """A report in five versions, and a crawl of two thousand pages."""
    past = [(f"{day} 20:00", "agent", _said(day), _site(number)) for number, day in enumerate(DAYS)]
    fill.tree(workflow, "site-report", past)
    fill.tree(workflow, "crawl-2026-05", [("2026-05-20 19:30", "agent", None, _crawl())])


def _said(day: str) -> str:
    return f"Checkpoint from run {uuid_of(f'run site-report {day}')}"  # the words VM0's agents write


def _site(number: int) -> Mapping[str, bytes | TreeFile]:
    """Return version ``number`` of the report; each differs a little from the one before."""
    day, broken = DAYS[number], (5, 5, 2, 1, 0)[number]
    findings = handbook.SITE_FINDINGS[: 3 + number] if number < 2 else handbook.SITE_FINDINGS[number - 1 :]  # noqa: PLR2004 - the first is fixed in the third
    page = handbook.SITE_INDEX.format(
        day=day, pages=120 + number, broken=broken, findings="\n".join(f"<li>{text}</li>" for text in findings)
    )
    counted = "".join(f"{seen},{(5, 5, 2, 1, 0)[known]}\n" for known, seen in enumerate(DAYS[: number + 1]))
    time_ns = at(f"{day} 20:00")
    files: dict[str, bytes | TreeFile] = {
        "index.html": page.encode(),
        "style.css": handbook.SITE_STYLE.format(colour="#2f5d8c" if number < 3 else "#8c2f2f").encode(),  # noqa: PLR2004 - a new colour from the fourth on
        "data/broken.csv": f"day,broken\n{counted}".encode(),
        f"data/{day}.txt": Dice(f"site {day}").prose(12).encode() + b"\n",
        "data/latest.txt": TreeFile("data/latest.txt", None, mtime_ns=time_ns, target=f"{day}.txt"),
        "cache/pages/empty": TreeFile("cache/pages/empty", None, mtime_ns=time_ns),
        "serve.sh": b"#!/bin/sh\nexec python3 -m http.server --directory .\n",
    }
    if number:
        files["notes.md"] = "".join(f"- {seen}: looked again\n" for seen in DAYS[1 : number + 1]).encode()
    return files


def _crawl() -> Mapping[str, bytes | TreeFile]:
    dice = Dice("crawl")
    files: dict[str, bytes | TreeFile] = {}
    for directory in range(CRAWL_DIRECTORIES):
        for number in range(CRAWL_FILES):
            address = f"/{directory:02d}/{number:02d}"
            text = f"address: {address}\nstatus: {404 if dice.below(60) == 0 else 200}\n\n"
            files[f"pages/{directory:02d}/{number:02d}.txt"] = f"{text}{dice.prose(dice.between(6, 52))}\n".encode()
    return files


def fill_volumes(fill: Filler) -> None:
    """Inputs that agents read and people maintain."""
    workflow = fill.workflow("shared-inputs", "2026-01-12 08:00", "Volumes that several workflows read.")
    dice = Dice("volumes")
    catalogue: dict[str, bytes | TreeFile] = {"README.md": handbook.CATALOGUE_README.encode()}
    for family in ("rolls", "parts", "mounts"):
        lines = [f"{dice.between(1000, 9999)}\t{dice.pick(GOODS)}\t\n" for _ in range(25)]
        catalogue[f"{family}.tsv"] = "".join(sorted(lines)).encode()
    fill.tree(workflow, "reference-catalogue", [("2026-01-12 08:10", "user", None, catalogue)], role="volume")
    months: dict[str, bytes | TreeFile] = {}
    past: list[tuple[str, str, str | None, Mapping[str, bytes | TreeFile]]] = []
    for month in ("2026-01", "2026-02", "2026-03", "2026-04"):
        rows = "".join(f"{name},{euros(dice.between(390, 18900))}\n" for name in GOODS)
        months[f"{month}.csv"] = f"item,price_eur\n{rows}".encode()
        past.append((f"{month}-28 06:00", "user", f"prices of {month}", dict(months)))
    fill.tree(workflow, "pricing-history", past, role="volume")


def fill_uploads(fill: Filler) -> None:
    """Three files handed in for runs to come."""
    for name, data, when in (
        ("supplier-terms.pdf", media.pdf([["Terms of supply", "Payment within 30 days."]]), "2026-04-06 08:00"),
        ("shelf.jpg", media.jpeg("shelf, depot North"), "2026-04-30 13:05"),
        ("brief Q3.md", documents.MARKET_PLAN.format(quarter="Q3").encode(), "2026-05-19 17:20"),
    ):
        sha256, size = fill.put(data)
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        fill.store.put_upload(Upload(uuid_of(f"upload {name}"), name, "assistants", size, sha256, md5, at(when)))
