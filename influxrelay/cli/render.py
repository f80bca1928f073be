"""The command line's answers as text for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from influxrelay.core.text import age, count, shortened, size

_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # all but the newline: a terminal would obey them
_BEGINNING = "the beginning"
_WORDS = 60  # characters of a backend's words in a list
_NAME = 100  # characters of a measurement's name in a table


def safe(words: str) -> str:
    """Return a text without anything that a terminal would obey."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", words)


def queues(answer: dict[str, Any]) -> str:
    """Show the queues as a table, and below it what is wrong and what to do."""
    rows = answer["queues"]
    lines = ["The relay does not run; this is what its journals hold."] if answer["relay"] == "stopped" else []
    if not rows:
        return "\n".join([*lines, "There are no queues."])
    table = [("LISTENER", "BACKEND", "STATE", "QUEUE", "WRITES", "SIZE", "OLDEST", "DROPPED", "DEAD LETTERS")]
    for row in rows:
        writes, dropped = sum(each["writes"] for each in row["drops"]), sum(each["bytes"] for each in row["drops"])
        table.append(
            (
                row["listener"],
                row["backend"],
                row["state"],
                row["queue"],
                _known(row["writes"]),
                _known(row["bytes"], size),
                _known(row["oldest_age"], age),
                f"{writes} ({size(dropped)})" if writes else "0",
                _known(row["dead_letters"]),
            )
        )
    lines += [*_aligned(table), ""]
    advice = [f"{row['listener']}/{row['backend']}: {each}" for row in rows for each in row["advice"]]
    if not advice and answer["relay"] == "running":
        advice = ["Nothing is wrong."]
    answered = [line for row in rows if (line := _answered(row))]
    return "\n".join([*lines, *advice, *[""] * bool(answered), *answered]).rstrip("\n")


def _answered(row: dict[str, Any]) -> str:
    """Say how a backend has answered, since the start, with anything but a 2xx; empty if it has not."""
    requests, writes = (
        ", ".join(f"{each['means']} ({each['reason']}): {each['count']}" for each in row[name])
        for name in ("answers", "refused")
    )
    if not requests:
        return ""
    refused = f"; of acknowledged writes: {writes}" if writes else ""
    return safe(f"{row['listener']}/{row['backend']}: answers other than 2xx: {requests}{refused}")


def _known(value: Any, shown: Callable[[Any], str] = str) -> str:
    return "-" if value is None else shown(value)


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    table = [[safe(cell).replace("\n", "\\n") for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def dropped_queue(answer: dict[str, Any]) -> str:
    """Say what was dropped."""
    name = f"{answer['listener']}/{answer['backend']}"
    if answer["removed"]:
        return f"{name}: removed"
    return f"{name}: {count(answer['writes'], 'write')} dropped ({size(answer['bytes'])})"


def marked_repaired(answer: dict[str, Any]) -> str:
    """Say what is forgiven."""
    lost = f"{count(answer['writes'], 'write')} ({size(answer['bytes'])})"
    return f"{answer['listener']}/{answer['backend']}: {lost} no longer counted as lost"


def paused(answer: dict[str, Any]) -> str:
    """Say whether a queue is paused."""
    name = f"{answer['listener']}/{answer['backend']}"
    resume = f"influxrelay queues resume {answer['backend']} --listener {answer['listener']}"
    return f"{name}: paused; resume it with: {resume}" if answer["paused"] else f"{name}: resumed"


def letters(answer: dict[str, Any]) -> str:
    """Show the dead letters as a table."""
    if not answer["dead_letters"]:
        return "There are no dead letters."
    table = [("ID", "TIME", "LISTENER", "BACKEND", "DESTINATION", "STATUS", "MESSAGE", "FIRST LINE")]
    table += [
        (
            each["id"],
            each["time"],
            each["listener"],
            each["backend"],
            _destination(each),
            str(each["status"]),
            shortened(each["message"], _WORDS),
            shortened(each["first_line"], _WORDS),
        )
        for each in answer["dead_letters"]
    ]
    return "\n".join(_aligned(table))


def _destination(letter: dict[str, Any]) -> str:
    """Return database, retention policy if one was given, and precision."""
    policy = f".{letter['retention_policy']}" if letter["retention_policy"] else ""
    return f"{letter['database']}{policy} ({letter['precision'] or letter['kind']})"


def letter(answer: dict[str, Any]) -> str:
    """Show a dead letter with its lines."""
    fields = {
        "id": answer["id"],
        "time": answer["time"],
        "listener": answer["listener"],
        "backend": answer["backend"],
        "database": answer["database"],
        "retention policy": answer["retention_policy"] or "(the default)",
        "precision": answer["precision"] or f"- ({answer['kind']})",
        "query": answer["query"],
        "status": str(answer["status"]),
        "message": answer["message"],
        "size": size(answer["bytes"]),
    }
    return "\n".join(
        [*_aligned([(f"{name}:", value) for name, value in fields.items()]), "", safe(answer["lines"]).rstrip("\n")]
    )


def replayed(answer: dict[str, Any]) -> str:
    """Say which dead letters were taken, and why the others were not."""
    lines = [f"{count(len(answer['replayed']), 'dead letter')} replayed, {len(answer['failed'])} not taken"]
    lines += [f"{each['id']} ({each['listener']}/{each['backend']}): {each['reason']}" for each in answer["failed"]]
    return "\n".join(lines)


def dropped_letters(answer: dict[str, Any]) -> str:
    """Say how many were dropped."""
    return f"{count(answer['dropped'], 'dead letter')} dropped"


def shards(answer: dict[str, Any]) -> str:
    """Show the maps of listeners with shards."""
    lines: list[str] = []
    for each in answer["listeners"]:
        default = f", without it in {each['default_shard']}" if each["default_shard"] else ""
        lines.append(f"{each['name']}: by {each['shard_key']}{default}")
        for epoch in each["epochs"]:
            lines.append(f"  {'*' if epoch['current'] else ' '} from {epoch['since'] or _BEGINNING}: {_named(epoch)}")
            lines += [f"      {key} is pinned to {name}" for key, name in epoch["pins"].items()]
        if "key" in each:
            lines.append(f"  {each['key'] or 'what lacks the tag'} at {answer['at']}: {each['shard']}")
    return "\n".join(lines)


def _named(epoch: dict[str, Any]) -> str:
    found = epoch["shards"]
    if len({each["weight"] for each in found}) == 1:
        return ", ".join(each["name"] for each in found)
    return ", ".join(f"{each['name']} (weight {each['weight']:g})" for each in found)


def repaired(answer: dict[str, Any]) -> str:
    """Say what was copied to a backend, and what was not."""
    dry, sources = answer["dry_run"], ", ".join(answer["from"])
    name = f"{answer['listener']}/{answer['backend']}"
    lines = [f"{name}: {'would create' if dry else 'created'} {each}" for each in answer["created"]]
    lines += [*_differences(answer["differences"]), ""] if answer["differences"] else []
    if answer["not_copied"]:
        table = [("NOT COPIED", "DATABASE", "RETENTION POLICY", "MEASUREMENT", "SINCE", "UNTIL", "")]
        names = ("database", "retention_policy", "measurement", "since", "until", "message")
        table += [(str(each["points"]), *(each[field] for field in names)) for each in answer["not_copied"]]
        lines += [*_aligned(table), ""]
    done = f"{count(answer['copied'], 'point')} {'would be ' if dry else ''}copied from {sources or 'nowhere'}"
    if answer["overwritten"]:
        done += f", {count(answer['overwritten'], 'point')} {'would be ' if dry else ''}overwritten"
    if answer["differing"]:
        done += f", {count(answer['differing'], 'point')} with other values left as they are (--overwrite copies them)"
    if failed := sum(each["points"] for each in answer["not_copied"]):
        done += f", {count(failed, 'point')} not copied"
    lines.append(f"{name}: {done}.")
    if answer["losses_forgotten"]:
        lines.append(f"{name}: what its queue had lost is there again, and no longer counted.")
    return "\n".join(lines)


def verified(answer: dict[str, Any]) -> str:
    """Show how backends differ."""
    compared = answer["compared"]
    looked = f"{count(compared['windows'], 'window')} compared by aggregates, {count(compared['points'], 'point')} read"
    if answer["equal"]:
        return f"Equal: {looked}."
    found = count(len(answer["differences"]), "difference")
    return "\n".join([*_differences(answer["differences"]), "", f"{found}: {looked}.", *_advice(answer["differences"])])


def _advice(differences: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield what can be done about differences."""
    for name in sorted({each["backend"] for each in differences if "backend" in each}):
        words = f"{name} lacks something: influxrelay repair {name} copies it from a backend that has it"
        yield f"{words} (first look with --dry-run)."
    pairs = {tuple(each["backends"]) for each in differences if each["kind"] == "value" and each["database"]}
    for one, other in sorted(pairs):
        words = f"Values of {one} and {other} differ, and only you know which are right"
        yield f"{words}: influxrelay repair {other} --from {one} --overwrite gives {other} those of {one}."
    if any(each["kind"] == "schema" and "backends" in each for each in differences):
        yield "Settings of retention policies and types of fields are not changed by repair: see to them by hand."


def _differences(differences: Sequence[dict[str, Any]]) -> list[str]:
    table = [("KIND", "BACKEND", "DATABASE", "RETENTION POLICY", "MEASUREMENT", "SINCE", "UNTIL", "POINTS", "")]
    table += [
        (
            each["kind"],
            each["backend"] if "backend" in each else ", ".join(each["backends"]),
            each["database"] or "-",
            each["retention_policy"] or "-",
            shortened(each["measurement"], _NAME) or "-",
            each["since"] or "-",
            each["until"] or "-",
            str(each["points"] or "-"),
            each.get("message", ""),
        )
        for each in differences
    ]
    return _aligned(table)


def converted(answer: dict[str, Any]) -> str:
    """Show a converted file, or what was changed in one that was written."""
    if not answer["output"]:
        text: str = answer["text"]
        return text.removesuffix("\n")
    changes = [f"  {each}" for each in answer["changes"]] or ["  nothing"]
    return "\n".join([f"Written to {answer['output']}. Changed:", *changes])


def reloaded(answer: dict[str, Any]) -> str:
    """Show what a reload has changed, or would change."""
    checked, changes = answer["checked"], answer["changes"]
    if not changes:
        return "Nothing would change." if checked else "Nothing has changed."
    return "\n".join(["This would change:" if checked else "Changed:", *(f"  {each}" for each in changes)])
