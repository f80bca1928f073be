"""One server that is asked for its contents in PromQL: Prometheus, VictoriaMetrics and others."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import attrs

from influxrelay.verification.connection import Connection, TooLarge, Unanswered, problem
from influxrelay.verification.points import Points, Tags
from influxrelay.verification.statements import Window

MILLISECOND = 10**6  # nanoseconds; no time of a sample has a part of one
VALUE = "value"
_KIND = "__influxrelay__"  # a label of our own
_FUNCTIONS = {"count": "count_over_time", "sum": "sum_over_time", "min": "min_over_time", "max": "max_over_time"}
_FUNCTIONS |= {"last": "last_over_time"}
_TOO_MUCH = ("timeout", "canceled", "execution", "422")

Labels = Mapping[str, str]


@attrs.define
class Prometheus(Connection):
    """A backend that knows PromQL.

    The range of a selector ends at the last millisecond of a window, and is as long as the window: so it has the
    window's samples where the beginning does not count (Prometheus 3, VictoriaMetrics), and up to a millisecond more
    where it does (Prometheus 2). Queries of VictoriaMetrics near the present are shifted without ``nocache``.
    """

    def metrics(self, window: Window) -> set[str]:
        """Return the names that series have, and perhaps others that had some at another time."""
        asked = {"start": _seconds(window.since), "end": _seconds(window.until - MILLISECOND)}
        return set(self.get(self._path("label/__name__/values"), asked, self._data))

    def counts(self, metric: str, window: Window, width: int) -> dict[Window, int]:
        """Return how many samples there are in the parts of a window that have any.

        :param width: of a part, in nanoseconds.
        :raises TooLarge: the server would have to read more than it may.
        """
        asked = {
            "query": f"sum(count_over_time({selector(metric)}{_range(width)}))",
            "start": _seconds(window.since + width - MILLISECOND),
            "end": _seconds(window.until + width - 2 * MILLISECOND),
            "step": _seconds(width),
        }
        found: dict[Window, int] = {}
        for series in self._ask("query_range", asked):
            for seconds, value in series["values"]:
                until = round(float(seconds) * 1000 + 1) * MILLISECOND
                found[Window(until - width, min(until, window.until))] = int(float(value))
        return found

    def aggregates(self, metric: str, window: Window, limit: int) -> dict[Tags, dict[str, float]]:
        """Return the aggregates of each series that has samples.

        :param limit: of bytes of the answer.
        :raises TooLarge: it has more, or the server would have to read more than it may.
        """
        chosen = selector(metric) + _range(window.length)
        query = " or ".join(
            f'label_replace({function}({chosen}), "{_KIND}", "{name}", "", "")' for name, function in _FUNCTIONS.items()
        )
        found: dict[Tags, dict[str, float]] = {}
        for series in self._ask("query", {"query": query, "time": _last(window)}, limit):
            labels = dict(series["metric"])
            labels.pop("__name__", None)  # some functions leave it there, which ones depends on the server
            kind = labels.pop(_KIND)
            found.setdefault(_tags(labels), {})[kind] = float(series["value"][1])
        return found

    def samples(self, metric: str, window: Window, limit: int, labels: Labels | None = None) -> list[Any]:
        """Return all samples in a window, of one series or of all of a metric; see :func:`read_samples`.

        :param limit: of bytes of the answer.
        :raises TooLarge: it has more, or the server would have to read more than it may.
        """
        query = selector(metric, labels or {}) + _range(window.length)
        return self._ask("query", {"query": query, "time": _last(window)}, limit)

    def _ask(self, what: str, asked: Mapping[str, str], limit: int | None = None) -> list[Any]:
        found = self.post(self._path(what), {**asked, "nocache": "1"}, self._data, limit=limit)
        result: list[Any] = found["result"]
        return result

    def _path(self, what: str) -> str:
        return f"{urlsplit(self.url).path.removesuffix('/query')}/{what}"

    def _data(self, body: bytes) -> Any:
        answer = json.loads(body)
        if answer.get("isPartial"):
            raise Unanswered(f"{self.name} sent a partial response: one of its storage nodes is down")
        return answer["data"]

    def _refused(self, status: int, text: str) -> None:
        """Tell what is too much for the server from other refusals."""
        try:
            kind = json.loads(text).get("errorType", "")
        except (ValueError, AttributeError):
            kind = ""
        if kind in _TOO_MUCH:
            raise TooLarge(f"{self.name} answered {status}: {problem(text)}")
        super()._refused(status, text)


def selector(metric: str, labels: Labels | None = None) -> str:
    """Return what finds the series of a metric that have some labels."""
    pairs = {"__name__": metric, **(labels or {})}
    return "{" + ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in pairs.items()) + "}"


def read_samples(answer: Iterable[Any], window: Window) -> Points:
    """Return the samples of a window by series and nanosecond.

    Those that are not a number are left out: VictoriaMetrics shows the markers of the end of a series as such, and
    keeps no others. Several samples of one time, which only it keeps, are one if their values are the same.
    """
    found: Points = {}
    for series in answer:
        samples: dict[int, set[float]] = {}
        for seconds, text in series.get("values", ()):
            time, value = round(float(seconds) * 1000) * MILLISECOND, float(text)
            if window.since <= time < window.until and not math.isnan(value):
                samples.setdefault(time, set()).add(value)
        if samples:
            labels = {name: value for name, value in series["metric"].items() if name != "__name__"}
            found[_tags(labels)] = {time: {VALUE: _value(values)} for time, values in samples.items()}
    return found


def has_histograms(answer: Sequence[Any]) -> bool:
    """Say whether a series has native histograms, which are not compared."""
    return any("histograms" in series for series in answer)


def _value(values: set[float]) -> float | tuple[float, ...]:
    return tuple(sorted(values)) if len(values) > 1 else next(iter(values))


def _tags(labels: Labels) -> Tags:
    return tuple(sorted((name, value) for name, value in labels.items()))


def _range(length: int) -> str:
    return f"[{length // MILLISECOND}ms]"


def _last(window: Window) -> str:
    return _seconds(window.until - MILLISECOND)


def _seconds(nanoseconds: int) -> str:
    """Return a time as the API takes it, exactly."""
    milliseconds = nanoseconds // MILLISECOND
    return f"{'-' if milliseconds < 0 else ''}{abs(milliseconds) // 1000}.{abs(milliseconds) % 1000:03d}"
