"""Copying to a server that knows PromQL the samples that it lacks and another has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import attrs

from influxrelay.remotewrite.encoding import Labels, Sample, body
from influxrelay.verification.differences import Difference
from influxrelay.verification.points import MISSING, Points, Tags
from influxrelay.verification.prometheus import MILLISECOND, VALUE
from influxrelay.verification.repair import Uncopied
from influxrelay.verification.samples import SampleComparison
from influxrelay.verification.statements import Measurement, Window

BATCH = 5000  # samples that are written at a time
_SEVERAL = "the other backend has several values of one time"
_NOT_THERE = "it was taken, and is not there"


@attrs.define
class SampleMender:
    """Copies samples from one server to another, window by window.

    A body that is refused because of one sample, which is too old for example, the relay divides and sends in parts. So
    what was copied is known when it is read back.

    :param write: writes a body with so many samples; returns why the server has refused some of them, empty if it has
        taken all.
    :ivar copied: how many samples were copied, or would be; until :meth:`finish` those count that were sent.
    :ivar differing: how many have other values, which no server replaces.
    """

    source: str
    target: str
    write: Callable[[bytes, int], str]
    dry_run: bool = False
    copied: int = 0
    differing: int = 0
    uncopied: list[Uncopied] = attrs.field(factory=list)
    _windows: list[tuple[str, Window]] = attrs.field(factory=list, init=False)
    _messages: dict[str, str] = attrs.field(factory=dict, init=False)

    def mend(self, metric: str, window: Window, servers: dict[str, Points]) -> None:
        """Copy what is missing in a window."""
        lacking: list[tuple[Tags, dict[int, float]]] = []
        for tags, samples in servers[self.source].items():
            having = servers[self.target].get(tags, {})
            self.differing += sum(time in having and having[time] != sample for time, sample in samples.items())
            values = {time: sample[VALUE] for time, sample in samples.items() if time not in having}
            several = sorted(time for time, value in values.items() if isinstance(value, tuple))
            if several:
                self._note(metric, several, _SEVERAL)
            lacking.append((tags, {time: value for time, value in values.items() if not isinstance(value, tuple)}))
        number = sum(len(values) for _, values in lacking)
        self.copied += number
        if self.dry_run or not number:
            return
        self._windows.append((metric, window))
        for batch in _batches(metric, lacking):
            if message := self.write(body(batch), sum(len(samples) for _, samples in batch)):
                self._messages[metric] = message

    def finish(self, comparison: SampleComparison) -> None:
        """Find out what has become of what was written."""
        if self._messages:
            self.write(body([]), 0)  # comes behind the parts of what was refused
        if self._windows:
            comparison.wait()
        for metric, window in self._windows:
            for each in comparison.read(metric, window):
                if each.kind == MISSING and each.backends == (self.target,):
                    self._note_left(each)

    def _note_left(self, left: Difference) -> None:
        assert left.since is not None and left.until is not None  # noqa: S101, PT018 (samples have times)
        if any(known.message == _SEVERAL and known.since <= left.since < known.until for known in self.uncopied):
            return
        metric = left.measurement
        message = self._messages.get(metric, _NOT_THERE)
        self.copied -= left.points
        self.uncopied.append(Uncopied(Measurement("", "", metric), left.since, left.until, left.points, message))

    def _note(self, metric: str, times: Sequence[int], message: str) -> None:
        self.uncopied.append(Uncopied(Measurement("", "", metric), times[0], times[-1] + 1, len(times), message))


def _batches(
    metric: str, lacking: Sequence[tuple[Tags, dict[int, float]]]
) -> Iterator[list[tuple[Labels, list[Sample]]]]:
    """Yield series with their samples, so many samples at a time."""
    batch: list[tuple[Labels, list[Sample]]] = []
    room = BATCH
    for tags, values in lacking:
        samples = [(value, time // MILLISECOND) for time, value in sorted(values.items())]
        while samples:
            batch.append((sorted((("__name__", metric), *tags)), samples[:room]))
            samples, room = samples[room:], room - len(samples[:room])
            if not room:
                yield batch
                batch, room = [], BATCH
    if batch:
        yield batch
