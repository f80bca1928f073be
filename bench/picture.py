"""The results as one picture, in SVG: writes per second and CPU time per write."""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.report import Report

_ROWS = (
    ("1x1", "1 client, 1 line in each write"),
    ("64x1", "64 clients, 1 line in each write"),
    ("64x1000", "64 clients, 1,000 lines in each write"),
)
_COLUMNS = (
    ("writes/s", "writes per second", "longer is better"),
    ("cpu", "CPU time per write, microseconds", "shorter is better"),
)
_LEFT_OUT = "no relay"

_MARGIN = 16
_NAMES = 170  # width of the column of names
_BARS = 210  # width of the longest bar
_VALUES = 74  # width of the figure behind it
_STEP = 20  # from one bar to the next
_BAR = 13  # height
_HEAD = 46  # height of what stands above the first row
_TITLE = 30  # height of a row's title
_GAP = 12  # below a row
_WIDTH = 2 * _MARGIN + _NAMES + len(_COLUMNS) * (_BARS + _VALUES)

# The colours have enough contrast on white and on black: one file serves light and dark pages.
_STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #6f7887; }
.title { font-weight: 600; }
.name { text-anchor: end; }
.ours { fill: #2563eb; }
.journal { fill: #6b9bf2; }
.other { fill: #848d9c; }
"""


@dataclass(frozen=True)
class _Row:
    """The bars of one scenario: for each contender, its figures by column."""

    title: str
    bars: list[tuple[str, list[float | None]]]

    @property
    def height(self) -> int:
        return _TITLE + _STEP * len(self.bars) + _GAP


def _rows(report: Report) -> list[_Row]:
    rows = []
    for scenario, title in _ROWS:
        figures = {
            name: [report.median(scenario, name, key) for key, _, _ in _COLUMNS]
            for name in report.contenders
            if name != _LEFT_OUT
        }
        bars = [(name, values) for name, values in figures.items() if any(value is not None for value in values)]
        if bars:
            rows.append(_Row(title, bars))
    return rows


def _text(x: float, y: float, kind: str, text: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(text)}</text>'


def _column(number: int) -> int:
    return _MARGIN + _NAMES + 8 + number * (_BARS + _VALUES)


def _draw_row(row: _Row, top: int, kinds: dict[str, str]) -> list[str]:
    parts = [_text(_MARGIN, top + 18, "title", row.title)]
    most = [max((values[number] or 0 for _, values in row.bars), default=0) or 1 for number in range(len(_COLUMNS))]
    for place, (name, values) in enumerate(row.bars):
        y = top + _TITLE + place * _STEP
        parts.append(_text(_MARGIN + _NAMES, y + 11, "name", name))
        for number, value in enumerate(values):
            if value is not None:
                x, width = _column(number), max(value / most[number] * _BARS, 1)
                kind = kinds.get(name, "other")
                parts.append(f'<rect x="{x}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2" class="{kind}"/>')
                parts.append(_text(round(x + width + 6, 1), y + 11, "value", f"{value:,.0f}"))
    return parts


def draw(report: Report) -> str:
    """Return the picture of a report."""
    rows = _rows(report)
    kinds = {report.roles.get("relay", ""): "ours", report.roles.get("journal", ""): "journal"}
    height = _HEAD + sum(row.height for row in rows)
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">',
        '<title id="title">Writes per second and CPU time per write</title>',
        f"<style>{_STYLE}</style>",
    ]
    for number, (_, title, hint) in enumerate(_COLUMNS):
        parts.append(_text(_column(number), 22, "title", title))
        parts.append(_text(_column(number), 39, "hint", hint))
    top = _HEAD
    for row in rows:
        parts += _draw_row(row, top, kinds)
        top += row.height
    return "\n".join([*parts, "</svg>"]) + "\n"
