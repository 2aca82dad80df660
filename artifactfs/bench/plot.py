"""The plot: for each task a bar for each contender, on a logarithmic axis, as SVG.

Rules of this file: pure text, no library; readable on a light and on a dark page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from artifactfs.bench.results import CURL, Table
from artifactfs.bench.tasks import LABELS

WIDTH, LEFT, RIGHT = 900, 250, 80
BAR, GAP, HEAD = 11, 12, 64
# Ours in blues, peers in warm colours, floors in greys.
COLOURS: Mapping[str, Sequence[str]] = {
    "artifactfs": ("#1f5fbf", "#4a90e2", "#7db8f0", "#a8d0f5"),
    "peer": ("#c0392b", "#e67e22", "#d4a017", "#8e44ad", "#b5651d", "#d16ba5"),
    "floor": ("#555555", "#888888", "#aaaaaa"),
}
SHOWN = ("mount", "mount restart", "ls cold", "ls warm", "grep cold", "grep warm", "cp cold", "tar cold", "rsync cold",
         "git diff cold", "big cold", "big warm", "random cached", "grep all cold", "grep all warm",
         "grep all restart")  # fmt: skip
STYLE = (
    "text{font:11px sans-serif;fill:#444}.title{font-size:14px;font-weight:bold}.grid{stroke:#8884;stroke-width:1}"
    "@media(prefers-color-scheme:dark){text{fill:#ccc}}"
)


def svg(report: Mapping[str, Any], rtt_ms: float) -> str:
    """Return the plot of one round trip of a report."""
    table = Table(report)
    colours = _colours(table)
    groups = [(task, _bars(table, task, rtt_ms)) for task in SHOWN]
    groups = [(task, bars) for task, bars in groups if bars]
    walls = [wall for _, bars in groups for _, wall in bars]
    if not walls:
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEAD}"/>\n'
    low, high = math.floor(math.log10(min(walls))), math.ceil(math.log10(max(walls)))
    scale = _Scale(low, max(high, low + 1))
    legend = _legend(colours)
    top = HEAD + 16 * math.ceil(len(colours) / 4)
    parts, y = [], top + 10.0
    for task, bars in groups:
        parts.append(_text(LEFT - 8, y + len(bars) * BAR / 2 + 4, LABELS.get(task, task).replace("`", ""), "end"))
        for name, wall in bars:
            parts.append(_bar(scale, y, colours[name], name, wall))
            y += BAR
        y += GAP
    title = f"Seconds, {rtt_ms:g} ms round trip; medians of {report['rounds']}; {report['date'][:10]}"
    head = f'<text class="title" x="16" y="24">{escape(title)}</text>'
    body = "\n".join([head, *legend, *_grid(scale, top, y), *parts])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 24:.0f}"'
        f' viewBox="0 0 {WIDTH} {y + 24:.0f}"><style>{STYLE}</style>\n{body}\n</svg>\n'
    )


class _Scale:
    """Seconds to pixels."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def at(self, seconds: float) -> float:
        share = (math.log10(seconds) - self.low) / (self.high - self.low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)


def _colours(table: Table) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind, palette in COLOURS.items():
        for at, name in enumerate(table.of_kind(kind)):
            found[name] = palette[at % len(palette)]
    return found


def _bars(table: Table, task: str, rtt_ms: float) -> list[tuple[str, float]]:
    bars = [(name, table.wall(name, task, rtt_ms)) for name in table.kinds]
    if task == "big cold":
        bars.append(("curl", table.wall("curl", CURL, rtt_ms)))
    return [(name, wall) for name, wall in bars if wall]


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _bar(scale: _Scale, y: float, colour: str, name: str, wall: float) -> str:
    end = scale.at(wall)
    rect = f'<rect x="{LEFT}" y="{y:.1f}" width="{max(1.0, end - LEFT):.1f}" height="{BAR - 2}" fill="{colour}">'
    return f"{rect}<title>{escape(name)}: {wall:.3g} s</title></rect>{_text(end + 4, y + BAR - 3, f'{wall:.3g}')}"


def _grid(scale: _Scale, top: float, bottom: float) -> list[str]:
    lines = []
    for power in range(scale.low, scale.high + 1):
        x = scale.at(10.0**power)
        lines.append(f'<line class="grid" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom:.1f}"/>')
        lines.append(_text(x, bottom + 14, f"{10.0**power:g} s", "middle"))
    return lines


def _legend(colours: Mapping[str, str]) -> list[str]:
    parts = []
    for at, (name, colour) in enumerate(colours.items()):
        x, y = 16 + at % 4 * 215, 44 + at // 4 * 16
        parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(x + 15, y, name))
    return parts
