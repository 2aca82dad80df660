"""What a team keeps beside its agents' work: a runbook, decisions, minutes, a changelog. Text only."""

from __future__ import annotations

RUNBOOK = """\
# Runbook: label service

**It prints nothing.** Look at the queue first: `labelctl queue`. More than 200 waiting means a printer holds
the lease and is gone. `labelctl lease drop <printer>`; nothing is printed twice, the lease carries a number.

**It prints the wrong thing.** Stop it (`labelctl stop`), keep the spool, call whoever is on duty.
Do not delete the spool: it is the only record of what went out.

**It is slow.** Usually the template cache after a release. It fills within ten minutes.

Never restart all three at once.
"""

ONBOARDING = """\
# First week

Monday: laptop, keys, a walk through the depot. Ask why the floor is marked in blue.
Tuesday: read `runbook.md`, then break the staging queue on purpose and repair it.
Wednesday: print one label end to end and write down every step that surprised you.
Thursday: change something small that surprised you. Ship it.
Friday: nothing planned. There will be something.
"""

DECISION = """\
# 0007: Labels are rendered on the server

Status: accepted, 2026-02-18.

**Context.** Drivers render differently. The same template was two millimetres too tall on a third of devices.

**Decision.** The server renders to a bitmap at the device's resolution; the device prints bits.

**Consequences.** 40 KB instead of 2 KB a label. Fonts are licensed once. A device that cannot take bitmaps is
no longer supported (four are left, all in one depot).

**Rejected.** Shipping one driver: three platforms, one person.
"""

MINUTES = """\
# Minutes, 6 May 2026

Present: Ines, Tomasz, Aiko, the agent (as minute-taker).

- Crawl: 2,000 pages are enough for now. Aiko asks for mobile widths next time.
- Invoices: the screen photograph of April is settled; the supplier now sends files.
- Tomasz wants the changelog written for people. Agreed; from version 9 on.
- Next meeting without the agent, to see what changes.
"""

INCIDENT = """\
# Incident 2026-04-30: labels in the wrong depot

**What happened.** For 26 minutes, labels of depot North came out in depot South. 112 parcels were relabelled
by hand. None left the building.

**Why.** Two printers shared a name after a restore from backup. The lease goes by name.

**What helped.** The depot noticed by the colour of the roll, not by monitoring.

**What we change.** Leases go by serial number. A second device with a known name is refused, loudly.
"""

DEPLOY_CHECK = """\
#!/bin/sh
# Refuses a release whose changelog has no entry for it.
set -eu
version=$(cat VERSION)
if ! grep -q "^## $version" CHANGELOG.md; then
    echo "no entry for $version" >&2
    exit 1
fi
echo "ok: $version"
"""

CHANGELOG_HEAD = """\
# Changelog of the label service

Newest first. Dates are the day it reached all depots.
"""

# Oldest first: each version of the file adds the next on top.
CHANGES = (
    ("0.1.0", "2026-01-14", "First labels from the new service, one depot."),
    ("0.1.1", "2026-01-19", "A roll that runs out in mid-label no longer loses it."),
    ("0.2.0", "2026-01-28", "Templates can hold two barcodes."),
    ("0.2.1", "2026-02-04", "Umlauts in addresses."),
    ("0.3.0", "2026-02-20", "Rendering moved to the server (decision 0007)."),
    ("0.3.1", "2026-02-23", "Bitmaps are packed; a label is 11 KB instead of 40."),
    ("0.4.0", "2026-03-09", "Three depots. The queue shows who holds a lease."),
    ("0.4.1", "2026-03-12", "Fixed: a lease could outlive its printer by an hour."),
    ("0.5.0", "2026-04-02", "You can pause a printer from the floor without calling anyone."),
    ("0.5.1", "2026-05-02", "Two printers can no longer share a name (incident of 30 April)."),
    ("0.6.0", "2026-05-11", "Labels survive the cold room. Use the blue roll."),
)

SITE_INDEX = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Shop report</title><link rel="stylesheet" href="style.css"></head>
<body>
<h1>Shop report</h1>
<p class="stamp">Crawled {day}. {pages} pages, {broken} broken links.</p>
<ul>
{findings}
</ul>
</body>
</html>
"""

SITE_STYLE = """\
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; }}
h1 {{ color: {colour}; }}
.stamp {{ color: #666; }}
"""

SITE_FINDINGS = (
    "The size guide moved and nothing points to its new place.",
    "The catalogue without a filter takes 3.1 s.",
    "Two prices differ from the feed by a rounding.",
    "The carousel cannot be stopped.",
    "The footer still names last year.",
)

CATALOGUE_README = """\
# Reference catalogue

An input, not a result: agents read it, people maintain it. One file a family, tab-separated, sorted by number.
A number is never used again. What is no longer sold keeps its line with an `x` in the last column.
"""
