"""What agents wrote: research, reviews, transcripts. Text only."""

from __future__ import annotations

MARKET_PLAN = """\
# Plan: market for shared label printers, {quarter} 2026

Question from the brief: is there room for a fourth vendor below 400 EUR?

1. Collect list prices and street prices of the three vendors that matter (Kolibri, Norda, Typewerk).
2. Read the last two quarters of reviews; count complaints, do not quote stars.
3. Talk to four buyers. Warehouse first, office second.
4. Write five pages at most. Every number carries its source.

Out of scope: consumables, service contracts, anything outside the EU.

Done when a reader can decide without opening a second document.
"""

INTERVIEWS = """\
# Interview notes

**Buyer A, parcel depot, 60 printers.** Replaces a third of them each year. Does not care about speed;
cares about the time from a jam to the next label. Measured it himself: four minutes on Norda, nine on Kolibri.

**Buyer B, hospital laboratory.** Bought Typewerk because the driver ran on the old terminals. Would pay more
for labels that survive minus 80 degrees. Nobody offered.

**Buyer C, furniture shop, 3 printers.** Price decides. Did not know that the warranty ends when other
labels are used.

**Buyer D, reseller.** Says street prices fell twice since autumn, by {drop} percent in all, and that Kolibri
pays for shelf space.

_All four agreed to be asked again. Names are in the vault, not here._
"""

MARKET_REPORT = """\
# Shared label printers: is there room below 400 EUR?

{quarter} 2026. Written for the product board.

## Answer

Yes, but not on price. Street prices fell {drop} percent in two quarters and the cheapest device now sells at
{low} EUR. What buyers miss is recovery: the minutes between a jam and the next good label.

## What the numbers say

| vendor   | list | street | jam to label | share of complaints on drivers |
|----------|-----:|-------:|-------------:|-------------------------------:|
| Kolibri  |  449 |    {low} |       9 min  |                           41 % |
| Norda    |  489 |    398 |       4 min  |                           17 % |
| Typewerk |  529 |    455 |       6 min  |                            8 % |

Sources: `sources.csv`, rows with status `checked`. Complaints: 1,204 reviews read, duplicates removed.

## What would change this answer

* A second price cut at Norda before summer.
* The laboratory segment being smaller than the two tenders suggest (see `findings.json`, key `open`).

## Recommendation

Build the recovery path first, price it at 419, and do not enter the race below 350.
"""

MARKET_REVIEW = """\
# Review of the report

Checked every figure in the table against `sources.csv`; {checked} of {checked} agree.

- The sentence on driver complaints read as if it covered all vendors. Reworded.
- "Room below 400" and a price of 419 look like a contradiction. They are not: the street price would be
  about 375. Said so in the answer.
- The chart starts at zero. Good.

Open: interview E was promised and did not happen.

Verdict: ready.
"""

INVOICE_NOTES = """\
# Extraction notes

Document: {pages} pages, scanned at 200 dpi, rotated by 0.4 degrees (corrected).

| field          | value found   | confidence | how it was checked                  |
|----------------|---------------|-----------:|-------------------------------------|
| invoice number | {number}  |       0.99 | appears twice                       |
| total          | {total}  |       0.98 | equals the sum of the lines plus tax |
| due date       | {due}    |       0.93 | issue date plus 30 days              |
| supplier       | Hafenlicht GmbH |     0.97 | matches the register                |

Line 4 carries a handwritten correction. The printed amount was used, because only it adds up.
"""

INVOICE_FAILURE = """\
2026-04-09T07:12:03Z INFO  run started, 1 document
2026-04-09T07:12:05Z INFO  page 1 of 3: 41 text boxes
2026-04-09T07:12:06Z WARN  page 2 of 3: 0 text boxes, trying again at 300 dpi
2026-04-09T07:12:11Z WARN  page 2 of 3: 0 text boxes, trying again inverted
2026-04-09T07:12:17Z ERROR page 2 of 3 is a photograph of a screen; moire above limit (0.61 > 0.40)
2026-04-09T07:12:17Z ERROR stopped: a total cannot be verified without page 2
2026-04-09T07:12:17Z INFO  kept what was read: partial/page-1.json
"""

VIDEO_SUMMARY = """\
# Review of the unboxing clip, cut 3

Length 1:34. Sound is a silent take; narration is to come.

* 0:00-0:11 opening shot. Logo readable, horizon tilted by 2 degrees.
* 0:12-0:48 unboxing. The hand leaves the frame twice (0:21, 0:37). Suggest the close-up of take 5.
* 0:49-1:20 first label. **The label shows a real address.** Blur it before publishing.
* 1:21-1:34 end card. Safe margins kept.

Stills: `frames/opening.jpg`, `frames/address-blurred.png`. The cut with the blur is linked as `clip_final`.
The turntable scan of the device is `scan/printer.spz`; motion vectors are in `data/motion.npy`.
"""

TRANSCRIPT = """\
WEBVTT

00:00.000 --> 00:04.200
This is the box as it arrives.

00:04.200 --> 00:09.800
Nothing in it but the printer, one roll and a card.

00:12.000 --> 00:18.500
Lift it at the two handles. The lid is not one of them.

00:49.000 --> 00:55.300
Hold the button until the light turns green, then let go.

01:02.000 --> 01:07.900
The first label is always blank. That is on purpose.
"""

SITE_AUDIT = """\
# Site audit, shop.example

Visited {pages} pages on one evening, politely: one request a second, cache respected.

## Found

1. **Broken links: {broken}.** All but one lead to the size guide that moved in March. List: `pages.csv`.
2. **Slowest page:** the catalogue without a filter, 3.1 s to the first product. It loads all 900.
3. **Prices:** two differ from the feed by a rounding. Nobody would notice; accounting will.

## Not found

No mixed content, no forms to foreign hosts, no personal data in addresses.

## Next

Fix the redirect first (ten minutes), then page the catalogue (a day). Ask again in four weeks.
"""

ACCESSIBILITY = """\
# Accessibility, short form

Tested by keyboard and with one screen reader. A person should repeat this; a machine finds a third of it.

- [x] Every control can be reached and left again.
- [x] The focus can be seen, except on the dark footer.
- [ ] The carousel moves by itself and cannot be stopped.
- [ ] Three images in it have no text.
- [ ] The secondary button has a contrast of 3.9 to 1; 4.5 is asked for.

Two hours of work, most of it the carousel. It could also go.
"""
