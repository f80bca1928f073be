"""What several workers say, as one answer; plain functions over what JSON can say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from influxrelay.report import Refused, Request, Row

_WORST_FIRST = ("trouble", "paused", "behind", "removed", "stopped", "up")

Answers = Mapping[int, dict[str, Any]]


def split(request: Request, workers: Iterable[int]) -> dict[int, Request]:
    """Return what to ask of which worker; a dead letter's id tells it: ``WORKER/ID``.

    :raises Refused: there is no such worker.
    """
    numbers = list(workers)
    if not request.ids:
        return dict.fromkeys(numbers, request)
    ids: dict[int, list[str]] = {}
    for each in request.ids:
        number, slash, rest = each.partition("/")
        if not (slash and number.isascii() and number.isdecimal() and int(number) in numbers):
            raise Refused(f"there is no dead letter {each}: with several workers an id is WORKER/NUMBER")
        ids.setdefault(int(number), []).append(rest)
    return {number: attrs.evolve(request, ids=tuple(each)) for number, each in ids.items()}


def combine(
    request: Request, answers: Answers, silent: Mapping[int, str], refused: Mapping[int, str], now: float
) -> dict[str, Any]:
    """Return one answer for all that were asked.

    :param silent: why some did not answer: that is only acceptable where nothing changes.
    :param refused: why some refuse. What is in one worker's journal only is unknown to the others, and that is well.
    :raises Refused: the answer for all would not be true.
    """
    if answers and not (silent and request.command != "queues") and not (refused and request.ids):
        merged = _merge(request, answers, now)
        return {**merged, "silent": [f"worker {number} {why}" for number, why in silent.items()]} if silent else merged
    if not answers and not silent and len(set(refused.values())) == 1:
        raise Refused(next(iter(refused.values())))
    words = [f"worker {number}: {why}" for number, why in {**refused, **silent}.items()]
    done = f"; it is done by worker {', '.join(map(str, answers))}" if answers else ""
    raise Refused("; ".join(words) + done)


def _merge(request: Request, answers: Answers, now: float) -> dict[str, Any]:
    several = list(answers.values())
    if request.command == "queues":
        rows = merge_rows([row for each in several for row in each["queues"]])
        return {"relay": several[0]["relay"], "queues": [row.show(now) for row in rows]}
    if request.command == "dead-letters list":
        letters = [_from(number, letter) for number, each in answers.items() for letter in each["dead_letters"]]
        return {"dead_letters": sorted(letters, key=lambda letter: str(letter["time"]))}
    if request.command == "dead-letters show":
        ((number, letter),) = answers.items()
        return _from(number, letter)
    if request.command == "dead-letters replay":
        replayed = [f"{number}/{each}" for number, answer in answers.items() for each in answer["replayed"]]
        failed = [_from(number, each) for number, answer in answers.items() for each in answer["failed"]]
        return {"replayed": replayed, "failed": failed}
    merged = dict(several[0])
    for key in ("writes", "bytes", "dropped"):
        if key in merged:
            merged[key] = sum(each[key] for each in several)
    return merged


def _from(worker: int, shown: dict[str, Any]) -> dict[str, Any]:
    return {**shown, "id": f"{worker}/{shown['id']}"}


def merge_rows(shown: Iterable[dict[str, Any]]) -> list[Row]:
    """Return one row for each backend of each listener."""
    rows: dict[tuple[str, str], Row] = {}
    for each in map(Row.parse, shown):
        key = each.listener, each.backend
        rows[key] = _merge_two(rows[key], each) if key in rows else each
    return list(rows.values())


def _merge_two(one: Row, two: Row) -> Row:
    drops = {each.reason: each for each in one.drops}
    for each in two.drops:
        same = drops.get(each.reason)
        drops[each.reason] = (
            each
            if same is None
            else attrs.evolve(
                each,
                writes=each.writes + same.writes,
                bytes=each.bytes + same.bytes,
                first=min(each.first, same.first),
                last=max(each.last, same.last),
            )
        )
    return attrs.evolve(
        one,
        state=min(one.state, two.state, key=_WORST_FIRST.index),
        reason=one.reason or two.reason,
        location=one.location or two.location,
        writes=_sum(one.writes, two.writes),
        bytes=_sum(one.bytes, two.bytes),
        oldest=min((each for each in (one.oldest, two.oldest) if each is not None), default=None),
        drops=tuple(drops.values()),
        dead_letters=_sum(one.dead_letters, two.dead_letters),
        journal_trouble=one.journal_trouble or two.journal_trouble,
        missing=tuple(sorted({*one.missing, *two.missing})),
    )


def _sum(one: int | None, two: int | None) -> int | None:
    return two if one is None else one if two is None else one + two
