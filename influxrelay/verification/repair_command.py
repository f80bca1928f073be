"""``influxrelay repair``: what is copied from where, by way of the running relay."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from influxrelay.config.settings import Config, HTTPOutputConfig, ListenerConfig
from influxrelay.core.text import count
from influxrelay.listeners.output_settings import make_filter
from influxrelay.operations.views import Refused, Request
from influxrelay.verification.backends import (
    authorization,
    find_listener,
    find_outputs,
    make_prometheus,
    make_server,
)
from influxrelay.verification.command import Queues, Wanted, bounds_of, not_looked_at, queued_since
from influxrelay.verification.comparison import Comparison, NothingToCompare, Selection
from influxrelay.verification.differences import Difference
from influxrelay.verification.order import Answer, Order
from influxrelay.verification.points import MISSING
from influxrelay.verification.prometheus import Prometheus
from influxrelay.verification.relay_writer import TRIES, Relay, RelayWriter
from influxrelay.verification.repair import Mending, create_missing
from influxrelay.verification.sample_repair import SampleMender
from influxrelay.verification.samples import SampleComparison
from influxrelay.verification.schema import read_schemas
from influxrelay.verification.setting import Outcome
from influxrelay.verification.statements import Window
from influxrelay.verification.tombstones import Missed, Tombstones, deleted_by, read_missed

_MARGIN = 60 * 10**9  # nanoseconds beside what was lost: clocks differ, and clients take their time


def repair(
    config: Config,
    wanted: Wanted,
    order: Order,
    relay: Relay,
    progress: Callable[[float, int, int], None],
) -> Answer:
    """Copy to a backend what it lacks.

    :param progress: is called with how many windows are done, of how many, and with how many points were copied.
    :raises InfluxRelayError: it cannot be told whether the backend has everything, or it must not be repaired now.
    """
    gc.set_threshold(100_000)  # points are many small objects, none of which needs to be looked for
    listener = find_listener(config, wanted.listener, order.backend)
    outputs, notes = _outputs(listener, wanted, order)
    rows = _rows(relay.queues, listener.name, order)
    answer = Answer(listener.name, order.backend, dry_run=order.dry_run, notes=notes)
    sources = list(_sources(list(outputs.values()), order, rows, answer))
    if not sources:
        raise Refused("; ".join(["there is no backend in sync to copy from; name one with --from", *answer.notes]))
    answer.sources = tuple(each.name for each in sources)
    queued, more = queued_since(relay.queues, listener.name, (order.backend, *answer.sources))
    answer.notes += more
    bounds, note = bounds_of(wanted, queued)
    answer.notes += note
    windows = [bounds]
    drops = rows.get(order.backend, {}).get("drops", [])
    if order.lost:
        windows = _lost(drops, bounds)
        if not windows:
            answer.notes.append("its queue has lost nothing in this time")
            return answer
    elif bounds.length <= 0:
        raise Refused("; ".join(["there is no time left to compare", *answer.notes]))
    tombstones = _missed(relay, answer)
    job = _Job(relay, wanted, order, outputs[order.backend], windows, answer, progress, tombstones)
    for each in sources:
        job.copy_from(each)
    if not order.dry_run:
        tombstones = _missed(relay, answer)
    answer.notes += (deleted_by(order.backend, each) for each in tombstones.get(order.backend, []))
    if drops and not order.dry_run and order.backend not in tombstones:
        _forget(answer, wanted, order, relay, drops)
    return answer


def _missed(relay: Relay, answer: Answer) -> Mapping[str, Sequence[Missed]]:
    """Return the changes that remove something and that backends have missed.

    :raises Refused: that is not known. What a dry run would copy is then only noted.
    """
    if not answer.dry_run:
        return read_missed(relay.ask_patiently, answer.listener)
    try:
        return read_missed(relay.ask_any, answer.listener)
    except Refused as error:
        answer.notes.append(f"whether a backend has missed a DELETE or DROP is not known: {error}")
        return {}


def _outputs(listener: ListenerConfig, wanted: Wanted, order: Order) -> tuple[dict[str, HTTPOutputConfig], list[str]]:
    """Return the outputs of the same kind as the backend, by name, and what is to be said of others.

    :raises Refused: it cannot be repaired so.
    """
    found = find_outputs(listener)
    is_prometheus = order.backend in [each.name for each in found.prometheus]
    outputs = {each.name: each for each in (found.prometheus if is_prometheus else found.influxdb)}
    notes = [*found.not_compared, *found.notes]
    for name in filter(None, (order.backend, order.source)):
        if name not in outputs:
            raise Refused("; ".join([f"{name} is not a backend of {listener.name} that can be repaired", *notes]))
    if is_prometheus and (wanted.database or wanted.policy):
        raise Refused(f"{order.backend} is a Prometheus backend, which has no databases")
    if is_prometheus and order.overwrite:
        raise Refused(f"{order.backend} is a Prometheus backend, which never replaces a sample; leave out --overwrite")
    if order.overwrite and not order.source and len(outputs) > 2:
        raise Refused("several backends may have other values; name the one that is right with --from")
    return outputs, notes


@attrs.define
class _Job:
    """What is copied to a backend."""

    relay: Relay
    wanted: Wanted
    order: Order
    output: HTTPOutputConfig
    windows: Sequence[Window]
    answer: Answer
    progress: Callable[[float, int, int], None]
    tombstones: Mapping[str, Sequence[Missed]]

    def copy_from(self, source: HTTPOutputConfig) -> None:
        """Copy what a source has."""
        credentials = self.wanted.credentials()
        header = authorization(self.output, credentials)
        writer = RelayWriter(
            self.relay, self.answer.listener, self.output.name, source.name, header, share=self.wanted.share
        )
        patient = {"share": self.wanted.share, "tries": TRIES, "sleep": self.relay.sleep, "tell": self.relay.tell}
        if source.type == "prometheus":
            servers = [make_prometheus(each, credentials, **patient) for each in (source, self.output)]
            _copy_samples(servers, writer, self)
            return
        target = make_server(self.output, credentials, **patient)
        mending = Mending(
            make_server(source, credentials, **patient),
            target,
            attrs.evolve(writer, written_as=target.written_as),
            self.order.overwrite,
            self.order.dry_run,
            make_filter(self.output),
            Tombstones(self.tombstones.get(source.name, [])),
        )
        try:
            _copy(mending, self.wanted, self.windows, self.answer, self.progress)
        finally:
            mending.source.close()
            target.close()


def _copy(
    mending: Mending,
    wanted: Wanted,
    windows: Sequence[Window],
    answer: Answer,
    progress: Callable[[float, int, int], None],
) -> None:
    """Copy what one source has in some ranges of time."""
    source, target = mending.source, mending.target
    copied = answer.copied
    _create(mending, wanted, answer)
    for window in windows:
        selection = Selection(wanted.database, wanted.policy, wanted.measurement, window)
        comparison = Comparison(
            [source, target],
            selection,
            lambda done, total, _: progress(done, total, copied + mending.copied),
            mender=mending,
        )
        try:
            outcome = comparison.run()
        except NothingToCompare:
            if len(answer.sources) == 1:
                raise
            answer.notes.append(f"{source.name} has nothing of what is asked for")
            break
        answer.differences += _left(outcome, target.name, mending)
        answer.surplus += sum(
            each.points for each in outcome.differences if each.kind == MISSING and each.backends == (source.name,)
        )
        answer.notes += not_looked_at(outcome)
        answer.not_compared += (each for each in outcome.not_compared if each not in answer.not_compared)
    answer.notes += mending.tombstones.notes(source.name)
    answer.copied += mending.copied
    answer.overwritten += mending.overwritten
    answer.differing += mending.differing
    answer.uncopied += mending.uncopied


def _copy_samples(servers: Sequence[Prometheus], writer: RelayWriter, job: _Job) -> None:
    """Copy the samples that one server has in some ranges of time to another."""
    answer, outcome = job.answer, Outcome()
    source, target = (each.name for each in servers)
    copied = answer.copied
    mender = SampleMender(source, target, writer.write_samples, answer.dry_run)
    try:
        for window in job.windows:
            SampleComparison(
                servers,
                Selection(measurement=job.wanted.measurement, bounds=window),
                outcome,
                lambda done, total, _: job.progress(done, total, copied + mender.copied),
                mender=mender,
            ).run()
        mender.finish(SampleComparison(servers, Selection(), Outcome()))
    finally:
        for each in servers:
            each.close()
    answer.copied += mender.copied
    answer.differing += mender.differing
    answer.uncopied += mender.uncopied
    for difference in outcome.differences:
        if difference.kind != MISSING or (answer.dry_run and difference.backends == (target,)):
            answer.differences.append(difference)
        elif difference.backends == (source,):
            answer.surplus += difference.points
    answer.notes += [*outcome.not_compared, *not_looked_at(outcome)]


def _create(mending: Mending, wanted: Wanted, answer: Answer) -> None:
    """Create the databases and retention policies that are missing."""
    servers = mending.source, mending.target
    having = list(read_schemas(servers, time.time_ns(), wanted.database, wanted.policy).values())
    for place, statement in create_missing(*having).items():
        if missed := mending.tombstones.drops(*place):
            answer.notes.append(
                f"{'.'.join(filter(None, place))} not created: {deleted_by(mending.source.name, missed)}"
            )
            continue
        if message := mending.target.why_not_created(place):
            answer.not_compared.append(f"{'.'.join(filter(None, place))} not created: {message}")
            continue
        if not mending.dry_run:
            mending.target.ask(statement)
        answer.created.append(".".join(filter(None, place)))
        if mending.dry_run and having[0].groups.get(place):
            answer.notes.append(f"all of {answer.created[-1]} would be copied, and is not counted")


def _left(outcome: Outcome, target: str, mending: Mending) -> Iterator[Difference]:
    """Yield what the repair does not change, or what a dry run would."""
    for each in outcome.differences:
        if each.kind == MISSING:
            if mending.dry_run and each.backends == (target,):
                yield each
        elif each.measurement == "" and len(each.backends) == 1:
            continue  # created, or what only the target has
        elif each.kind != "value" or mending.dry_run or not mending.overwrite:
            yield each


def _rows(queues: Queues, listener: str, order: Order) -> dict[str, dict[str, Any]]:
    """Return the queues of the listener by backend.

    :raises Refused: the relay does not run, does not know what backends have lost, or the backend is paused.
    """
    try:
        found = queues()
        problem = "the relay does not run" if found["relay"] == "stopped" else ""
    except Refused as error:
        found, problem = {"queues": []}, str(error)
    if problem and (not order.dry_run or order.lost):
        raise Refused(f"{problem}; what is copied goes through its queue: start it")
    rows = {row["backend"]: row for row in found["queues"] if row["listener"] == listener}
    for row in rows.values():
        if row["journal_trouble"]:
            raise Refused(f"what {row['backend']} has lost is not known: {row['journal_trouble']}")
    if problem:
        return rows
    for name in filter(None, (order.backend, order.source)):
        if rows.get(name, {}).get("state", "removed") == "removed":
            raise Refused(f"the relay has no backend {name} at {listener}; have it read the file: influxrelay reload")
    if not order.dry_run and rows[order.backend]["state"] == "paused":
        raise Refused(f"{order.backend} is paused; resume it with: influxrelay queues resume {order.backend}")
    return rows


def _sources(
    outputs: Sequence[HTTPOutputConfig], order: Order, rows: dict[str, dict[str, Any]], answer: Answer
) -> Iterator[HTTPOutputConfig]:
    """Yield the outputs to copy from: one that was named, else those that have lost nothing themselves."""
    for each in outputs:
        if each.name == order.backend or order.source not in ("", each.name):
            continue
        row = rows.get(each.name, {"state": "removed"} if rows else {})
        if row.get("state") == "removed":
            answer.notes.append(f"nothing is copied from {each.name}: the relay does not have it; influxrelay reload")
            continue
        if row.get("drops"):
            lost = f"{each.name} has lost writes itself, perhaps a DELETE"
            if not order.source:
                answer.notes.append(f"{lost}; nothing is copied from it unless --from names it")
                continue
            answer.notes.append(lost)
        yield each


def _lost(drops: Sequence[dict[str, Any]], bounds: Window) -> list[Window]:
    """Return the ranges of time in which a queue has dropped writes, the newest first."""
    found: list[Window] = []
    for first, last in sorted((_nanoseconds(each["first"]), _nanoseconds(each["last"])) for each in drops):
        window = Window(max(first - _MARGIN, bounds.since), min(last + _MARGIN, bounds.until))
        if found and window.since <= found[-1].until:
            found[-1] = Window(found[-1].since, max(found[-1].until, window.until))
        elif window.length > 0:
            found.append(window)
    return found[::-1]


def _nanoseconds(shown: str) -> int:
    return int(datetime.fromisoformat(shown).timestamp()) * 10**9


def _forget(answer: Answer, wanted: Wanted, order: Order, relay: Relay, drops: list[dict[str, Any]]) -> None:
    """Have the losses counted from zero if all that was lost is there again."""
    is_part = wanted.database or wanted.policy or wanted.measurement or wanted.until is not None
    if is_part or wanted.since is not None or not answer.complete:
        return
    if answer.surplus:
        answer.notes.append(
            f"{order.backend} has {count(answer.surplus, 'point')} that the others lack, perhaps because its queue has"
            " lost a DELETE: copy them to the others or delete them; until then its losses are counted"
        )
        return
    if answer.differing:
        answer.notes.append(
            f"{count(answer.differing, 'point')} of {order.backend} may be older than those that were lost: look at the"
            " values, and copy them with --overwrite; until then its losses are counted"
        )
        return
    if _rows(relay.queues, answer.listener, order).get(order.backend, {}).get("drops") != drops:
        answer.notes.append(f"{order.backend} has lost more meanwhile: repair it again")
        return
    relay.ask(Request("queues mark-repaired", answer.listener, order.backend))
    answer.forgotten = True
