"""What ``influxrelay top`` shows: lines for a screen of any size, the troubles before what is well."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs

from influxrelay.cli.render import safe
from influxrelay.core.text import age, count, shortened, size

GOOD, FAIR, BAD, FAINT, TITLE, PLAIN = "green", "yellow", "red", "dim", "bold", ""  # styles of rich
_QUALITIES = {"up": GOOD, "behind": FAIR, "paused": FAIR, "stopped": FAIR, "trouble": BAD, "removed": BAD}
_HEAD = ("BACKEND", "STATE", "IN/s", "OUT/s", "WAITING", "SIZE", "OLDEST", "LOST", "DEAD")
_LEAST = 10  # lines below the table that a long table leaves room for
_LONGEST = 24  # characters of a name in the table
_ONCE = 1000  # lines and columns of a screen that does not end


@attrs.frozen
class Line:
    """A line of the screen.

    :ivar look: :data:`GOOD`, :data:`FAIR`, :data:`BAD`, :data:`FAINT`, :data:`TITLE` or :data:`PLAIN`.
    """

    text: str
    look: str = PLAIN


@attrs.frozen
class Screen:
    """What is shown.

    :ivar skip: lines below the table that are above what is seen.
    """

    lines: list[Line]
    skip: int


def text(answer: dict[str, Any]) -> str:
    """Return all of it as text."""
    return "\n".join(line.text for line in screen(answer, 120, _ONCE).lines)


def screen(answer: dict[str, Any], width: int, height: int, *, note: str = "", foot: str = "", skip: int = 0) -> Screen:
    """Return what a screen shows.

    :param note: why the answer is old; empty if it is not.
    :param foot: is the last line.
    :param skip: lines below the table that are above what is seen; as many as there are at the most.
    """
    end = [Line(""), Line(foot, FAINT)] if foot else []
    found = [_title(answer, width), _headline(answer, note), Line("")]
    below = [
        line
        for each in (_troubles(answer, width), _letters(answer), _log(answer))
        if each
        for line in (Line(""), *each)
    ]
    room = max(0, height - len(end))
    found += _table(answer, width, max(2, room - len(found) - min(len(below), _LEAST)))
    left = max(0, room - len(found))
    skip = max(0, min(skip, len(below) - left))
    shown = below[skip : skip + left]
    if skip + left < len(below) and shown:
        shown[-1] = Line(f"  ({len(below) - skip - left + 1} more lines: arrow keys)", FAINT)
    lines = [*found[:room], *shown, *end]
    return Screen([attrs.evolve(each, text=shortened(each.text, width)) for each in lines], skip)


def _title(answer: dict[str, Any], width: int) -> Line:
    left = f"{answer['host']}: influxrelay {answer['version']}, up for {age(answer['uptime'])}"
    return Line(f"{left}  {answer['time'].rjust(width - len(left) - 2)}", TITLE)


def _headline(answer: dict[str, Any], note: str) -> Line:
    if note:
        return Line(safe(note), BAD)
    if troubles := answer["troubles"]:
        accepted = "; writes of clients are accepted" if answer["healthy"] else ""
        return Line(f"{count(len(troubles), 'thing')} to look at{accepted}", BAD)
    return Line("All is well", GOOD)


# -- the table


def _table(answer: dict[str, Any], width: int, most: int = _ONCE) -> list[Line]:
    """Return a line for each listener and backend.

    :param most: lines; backends that are up are left out first.
    """
    rows = _rows(answer)
    left_out = 0
    for quality in (GOOD, FAIR, BAD):
        for row in [each for each in reversed(rows) if each[1] == quality and len(each[0]) > 1]:
            if len(rows) + 1 + bool(left_out) > most:
                rows.remove(row)
                left_out += 1
    full = [_HEAD, *(cells for cells, _ in rows if len(cells) > 1)]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    columns = list(range(len(_HEAD)))
    for dropped in (5, 2, 3, 6):  # size, rates, age: until the rest fits
        if sum(widths[each] + 2 for each in columns) - 2 > width:
            columns.remove(dropped)
    lines = [_line(_HEAD, columns, widths, TITLE)]
    lines += [_line(cells, columns, widths, quality) for cells, quality in rows]
    if left_out:
        lines.append(Line(f"  ({count(left_out, 'backend')} more: enlarge the window)", FAINT))
    return lines


def _line(row: Sequence[str], columns: Sequence[int], widths: Sequence[int], look: str) -> Line:
    if len(row) == 1:
        return Line(row[0], look)
    cells = [row[each].ljust(widths[each]) if each < 2 else row[each].rjust(widths[each]) for each in columns]
    return Line("  ".join(cells).rstrip(), look)


def _rows(answer: dict[str, Any]) -> list[tuple[Sequence[str], str]]:
    """Return cells, those of a listener being one, and how they look."""
    rows: list[tuple[Sequence[str], str]] = []
    known = {each["name"] for each in answer["listeners"]}
    for listener in answer["listeners"]:
        reason = listener["problem"] if listener["ready"] else "it is starting or stopping"
        where = f" ({listener['bind_addr']})" if listener["bind_addr"] else ""
        state = f"refuses writes: {reason}" if reason else "takes writes"
        rows.append(((safe(f"{listener['name']}{where}: {state}"),), BAD if reason else PLAIN))
        rows += [_row(each) for each in answer["queues"] if each["listener"] == listener["name"]]
    return rows + [_row(each) for each in answer["queues"] if each["listener"] not in known]


def _row(row: dict[str, Any]) -> tuple[Sequence[str], str]:
    lost = sum(each["writes"] for each in row["drops"])
    cells = (
        f"  {shortened(safe(row['backend']), _LONGEST)}",
        row["state"],
        _number(row["accepted_rate"], "{:,.1f}"),
        _number(row["sent_rate"], "{:,.1f}"),
        "no queue" if row["queue"] == "none" else _number(row["writes"], "{:,}"),
        "-" if not row["bytes"] else size(row["bytes"]),
        "-" if row["oldest_age"] is None else age(row["oldest_age"]),
        f"{lost:,}",
        _number(row["dead_letters"], "{:,}"),
    )
    return cells, BAD if lost else _QUALITIES[row["state"]]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


# -- what is below it


def _wrapped(words: str, width: int, look: str = PLAIN, indent: str = "") -> list[Line]:
    lines = textwrap.wrap(safe(words), max(20, width), initial_indent=indent, subsequent_indent=f"{indent}  ")
    return [Line(each, look) for each in lines]


def _troubles(answer: dict[str, Any], width: int) -> list[Line]:
    lines: list[Line] = []
    for each in answer["troubles"]:
        name = "/".join(part for part in (each["listener"], each["backend"]) if part)
        lines += _wrapped(f"{name}: {each['what']}{_since(each, answer)}" if name else each["what"], width, BAD)
        for advice in each["advice"]:
            lines += _wrapped(advice, width, indent="  ")
    for row in answer["queues"]:
        if row["time_to_go"] is not None and row["state"] == "behind":
            name = f"{row['listener']}/{row['backend']}"
            lines += _wrapped(f"{name}: at this rate caught up in {age(row['time_to_go'])}", width)
    return lines


def _since(trouble: dict[str, Any], answer: dict[str, Any]) -> str:
    if trouble["since"] is None:
        return ""
    return f" since {_clock(trouble['since'])} ({age(_seconds(answer['time']) - _seconds(trouble['since']))})"


def _letters(answer: dict[str, Any]) -> list[Line]:
    lines = [Line("Dead letters, the oldest first", TITLE)] if answer["dead_letters"] else []
    for each in answer["dead_letters"]:
        message = f"{each['status']} {each['message']}: {each['first_line'] or each['kind']}"
        shown = f"  {_clock(each['time'])} {each['listener']}/{each['backend']} {each['database']}: {message}"
        lines.append(Line(safe(shown).replace("\n", " ")))
    return lines


def _log(answer: dict[str, Any]) -> list[Line]:
    lines = [Line("Warnings and errors in the log, the newest first", TITLE)] if answer["log"] else []
    for each in reversed(answer["log"]):
        times = f" [{each['times']} times since {_clock(each['first'])}]" if each["times"] > 1 else ""
        shown = f"  {_clock(each['time'])}{times} {each['message']}"
        lines.append(Line(safe(shown).replace("\n", " "), FAIR if each["level"] == "warn" else BAD))
    return lines


def _seconds(shown: str) -> float:
    return datetime.fromisoformat(shown).timestamp()


def _clock(shown: str) -> str:
    """Return a time without what is the same all day."""
    return shown[11:]
