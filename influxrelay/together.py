"""What several workers say, as one answer; plain functions over what JSON can say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from prometheus_client.core import Metric

from influxrelay.health import NAME, Check, Health
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


def merge(request: Request, answers: Answers, now: float) -> dict[str, Any]:
    """Return one answer for all, of which there is at least one."""
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


def merge_health(answers: Mapping[int, Health], silent: Mapping[int, str]) -> Health:
    """Return what holds for all workers, if there is any answer or silence at all.

    :param silent: why others have not.
    """
    words = [f"worker {number}: {each.message}" for number, each in answers.items() if not each.passed]
    words += [f"worker {number} {why}" for number, why in silent.items()]
    checks: dict[tuple[str, str], Check] = {}
    for number, each in answers.items():
        for check in each.checks:
            key = check.listener, check.name
            told = check if check.passed else attrs.evolve(check, message=f"worker {number}: {check.message}")
            if key not in checks or (checks[key].passed and not check.passed):
                checks[key] = told
    name, message = next(((each.name, each.message) for each in answers.values()), (NAME, ""))
    return Health(name, not words, "; ".join(words) or message, tuple(checks.values()))


def show_metrics(families: Iterable[Metric]) -> list[Any]:
    """Return a process's metrics for JSON."""
    return [[each.name, each.documentation, each.type, [[*sample[:3]] for sample in each.samples]] for each in families]


def merge_metrics(answers: Mapping[int, list[Any]]) -> list[Metric]:
    """Return the metrics of all workers, with a label that tells them apart."""
    families: dict[str, Metric] = {}
    for number, shown in answers.items():
        for name, documentation, kind, samples in shown:
            family = families.setdefault(name, Metric(name, documentation, kind))
            for sample, labels, value in samples:
                family.add_sample(sample, {**labels, "worker": str(number)}, value)
    return list(families.values())
