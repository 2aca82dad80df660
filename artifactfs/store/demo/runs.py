"""Workflows with runs: what agents did and left."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from artifactfs.store.demo import documents, media
from artifactfs.store.demo.dice import Dice
from artifactfs.store.demo.filler import ref

if TYPE_CHECKING:
    from artifactfs.store.demo.filler import Filler
    from artifactfs.store.rows import Run, Workflow

VENDORS = ("Kolibri", "Norda", "Typewerk")
SHOPS = ("Kontorwelt", "Depot24", "Papyrus", "Bureau Nord", "Etiketto")
GOODS = (
    "Thermal roll 62 mm",
    "Thermal roll 29 mm",
    "Cold-room roll, blue",
    "Print head",
    "Cutter blade",
    "Mains adapter",
    "Wall mount",
    "Cleaning cards",
)
TAX_PERCENT = 19
# The size that readers and caches meet in practice; and larger than any window read ahead.
VIDEO_MIB = 64


def as_json(value: Any) -> str:  # noqa: ANN401 - whatever JSON can say
    """Return JSON as agents write it."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def euros(cents: int) -> str:
    """Return an amount."""
    return f"{cents // 100}.{cents % 100:02d}"


def fill_market_research(fill: Filler) -> None:
    """Two finished quarters and one that is being written."""
    workflow = fill.workflow(
        "market-research", "2026-01-12 08:00", "Looks at a market once a quarter and says what to do."
    )
    for quarter, started, completed, drop, low in (
        ("Q1", "2026-02-03 09:00", "2026-02-03 10:12", 7, 369),
        ("Q2", "2026-04-28 09:00", "2026-04-28 10:26", 11, 349),
    ):
        run = fill.run(workflow, quarter, started, completed, "completed")
        _market_run(fill, run, {"quarter": quarter, "drop": drop, "low": low, "checked": 18 + drop})
    run = fill.run(workflow, "Q3", "2026-05-20 09:00", None, "running")
    fill.output(run, "plan", "plan.md", documents.MARKET_PLAN.format(quarter="Q3"), 4)
    fill.output(run, "research", "sources.csv", _sources("Q3"), 19)


def _market_run(fill: Filler, run: Run, facts: dict[str, Any]) -> None:
    quarter = str(facts["quarter"])
    dice = Dice(f"market {quarter}")
    shares = [dice.between(12, 40) for _ in range(8)]
    fill.output(run, "plan", "plan.md", documents.MARKET_PLAN.format(**facts), 5)
    fill.output(run, "research", "sources.csv", _sources(quarter), 22)
    fill.output(run, "research", "interviews/notes.md", documents.INTERVIEWS.format(**facts), 31)
    findings = fill.output(
        run,
        "research",
        "findings.json",
        as_json(
            {
                "quarter": quarter,
                "reviews_read": 1204,
                "street_price_change_percent": -facts["drop"],
                "complaints": {vendor: dice.between(40, 400) for vendor in VENDORS},
                "open": ["size of the laboratory segment", "interview E"],
            }
        ),
        44,
    )
    chart = fill.output(run, "write", "charts/complaints.png", media.bar_chart(shares), 52)
    report = fill.output(run, "write", "deliverable.md", documents.MARKET_REPORT.format(**facts), 58)
    fill.output(run, "review", "review.md", documents.MARKET_REVIEW.format(**facts), 70)
    fill.respond(
        run,
        {
            "summary": f"Room in the market, not on price ({quarter}).",
            "chart": ref(chart, "img"),
            "report": report.name,
            "findings": findings.name,
        },
    )


def _sources(quarter: str) -> str:
    dice = Dice(f"sources {quarter}")
    rows = ["vendor,shop,list_eur,street_eur,seen_on,status"]
    for vendor, price in zip(VENDORS, (449, 489, 529), strict=True):
        for shop in SHOPS:
            street = price - dice.between(20, 90)
            status = "checked" if dice.below(5) else "from cache"
            rows.append(f"{vendor},{shop},{price},{street},2026-0{dice.between(1, 4)}-{dice.between(10, 28)},{status}")
    return "\n".join(rows) + "\n"


def fill_invoices(fill: Filler) -> None:
    """Two invoices read, and one that could not be."""
    workflow = fill.workflow("invoice-extraction", "2026-03-30 13:00", "Reads invoices and proves the total.")
    first = fill.run(workflow, "one", "2026-04-07 07:10", "2026-04-07 07:13", "completed")
    _invoice(fill, first, "HL-2026-0412", "2026-05-06")
    failed = fill.run(workflow, "two", "2026-04-09 07:12", "2026-04-09 07:13", "failed")
    fill.output(failed, "extract", "run.log", documents.INVOICE_FAILURE, 0)
    page = {"page": 1, "text_boxes": 41, "invoice_number": "HL-2026-0419", "total": None}
    fill.output(failed, "extract", "partial/page-1.json", as_json(page), 1)
    last = fill.run(workflow, "three", "2026-05-11 07:10", "2026-05-11 07:14", "completed")
    _invoice(fill, last, "HL-2026-0533", "2026-06-09")


def _invoice(fill: Filler, run: Run, number: str, due: str) -> None:
    dice = Dice(f"invoice {number}")
    lines = [(dice.pick(GOODS), dice.between(1, 40), dice.between(390, 18900)) for _ in range(9)]
    net = sum(count * cents for _, count, cents in lines)
    total = net + (net * TAX_PERCENT + 50) // 100
    printed = [f"{count:4d} x {name:24s} {euros(cents):>9s}" for name, count, cents in lines]
    pages = [["Hafenlicht GmbH", f"Invoice {number}", "", *printed], ["Total", euros(total), f"Due {due}"]]
    table = "".join(f"{name},{count},{euros(cents)},{euros(count * cents)}\n" for name, count, cents in lines)
    document = fill.output(run, "extract", f"{number}.pdf", media.pdf(pages), 0)
    scan = media.page_scan([dice.between(40, 100) for _ in range(20)])
    page = fill.output(run, "extract", "page-1.png", scan, 1)
    fill.output(run, "extract", "lines.csv", f"item,count,price_eur,amount_eur\n{table}", 1)
    facts = {"number": number, "total": euros(total), "due": due, "pages": len(pages)}
    fill.output(run, "verify", "notes.md", documents.INVOICE_NOTES.format(**facts), 2)
    fill.output(run, "verify", "invoice.json", as_json({**facts, "supplier": "Hafenlicht GmbH"}), 2)
    fill.respond(run, {"invoice": facts, "document": ref(document, "doc"), "page": ref(page, "img")})


def fill_video_review(fill: Filler) -> None:
    """One run that left an object of each type there is."""
    workflow = fill.workflow("video-review", "2026-05-02 10:00", "Watches a cut and says what must change.")
    run = fill.run(workflow, "cut 3", "2026-05-14 15:00", "2026-05-14 15:41", "completed")
    dice = Dice("video")
    clip = fill.output(run, "watch", "clip.mp4", media.mp4(VIDEO_MIB, "clip"), 3)
    sound = fill.output(run, "watch", "audio/narration.mp3", media.mp3(250), 4)
    fill.output(run, "watch", "transcript.vtt", documents.TRANSCRIPT, 9)
    opening = fill.output(run, "analyse", "frames/opening.jpg", media.jpeg("opening, 0:07"), 14)
    blurred = media.bar_chart([dice.between(20, 90) for _ in range(16)], width=192, height=108)
    still = fill.output(run, "analyse", "frames/address-blurred.png", blurred, 15)
    motion = media.npy([dice.between(-512, 512) for _ in range(94 * 4)], 4)
    vectors = fill.output(run, "analyse", "data/motion.npy", motion, 18)
    cloud = [tuple(dice.between(-40960, 40960) for _ in range(3)) for _ in range(600)]
    scan = fill.output(run, "analyse", "scan/printer.spz", media.spz(cloud), 24)  # type: ignore[arg-type]  # three each
    pages = [["Review of cut 3", "One change before publishing: blur the address at 0:49."]]
    report = fill.output(run, "write", "review.pdf", media.pdf(pages), 36)
    fill.output(run, "write", "summary.md", documents.VIDEO_SUMMARY, 37)
    final, _ = fill.put(media.mp4(1, "clip final"))
    # A path: the server that is asked makes an address of it, on whatever host and port it was reached.
    link = fill.output(run, "write", "clip_final.url", f"/vlmrun/objects/{final}/clip_final.mp4\n", 39)
    fill.respond(
        run,
        {
            "verdict": "one change before publishing",
            "clip": ref(clip, "vid"),
            "narration": ref(sound, "aud"),
            "stills": [ref(opening, "img"), ref(still, "img")],
            "motion": ref(vectors, "arr"),
            "scan": ref(scan, "recon"),
            "report": ref(report, "doc"),
            "final_cut": ref(link, "url"),
            "notes": f"The address is blurred in `{ref(still, 'img')['id']}`.",
        },
    )


def fill_site_audit(fill: Filler) -> Workflow:
    """One audit; return the workflow, whose trees come from elsewhere."""
    workflow = fill.workflow("site-audit", "2026-04-01 08:30", "Visits a shop as a careful customer would.")
    run = fill.run(workflow, "april", "2026-04-22 18:00", "2026-04-22 19:05", "completed")
    dice = Dice("audit")
    rows = ["path,status,milliseconds,bytes"]
    for number in range(120):
        status = 404 if number % 24 == 7 else 200  # noqa: PLR2004 - five of 120 are broken
        rows.append(f"/p/{number:04d},{status},{dice.between(80, 3100)},{dice.between(900, 90000)}")
    fill.output(run, "crawl", "pages.csv", "\n".join(rows) + "\n", 40)
    shot = fill.output(run, "crawl", "screenshots/home.jpg", media.jpeg("home page, 1280 wide"), 41)
    audit = documents.SITE_AUDIT.format(pages=120, broken=5)
    fill.output(run, "write", "audit.md", audit, 55)
    fill.output(run, "write", "accessibility.md", documents.ACCESSIBILITY, 60)
    fill.respond(run, {"pages": 120, "broken_links": 5, "screenshot": ref(shot, "img")})
    return workflow
