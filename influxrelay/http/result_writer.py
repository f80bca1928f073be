"""Results in the forms that InfluxDB gives them (``services/httpd/response_writer.go``)."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import attrs

from influxrelay.sharding.results import Block

_CHUNK = 10_000  # rows of a chunk, unless the client says otherwise
_UNITS = {"ns": 1, "n": 1, "u": 10**3, "µ": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 10**9
_LARGEST = 1e21  # from here on Go writes floats with an exponent


@attrs.frozen
class Format:
    """How a client wants results.

    :ivar kind: ``json`` or ``csv``.
    :ivar unit: nanoseconds of the unit of times; 0 for text.
    :ivar chunk: rows of a chunk; 0 for one answer.
    """

    kind: str = "json"
    unit: int = 0
    chunk: int = 0
    pretty: bool = False
    gzip: bool = False

    @classmethod
    def read(cls, values: dict[bytes, bytes], accept: bytes, accept_encoding: bytes) -> Format:
        """Return what a request says."""
        chunk = 0
        if values.get(b"chunked") == b"true":
            size = values.get(b"chunk_size", b"")
            chunk = int(size) if size.isdigit() and int(size) > 0 else _CHUNK
        return cls(
            "csv" if accept in (b"application/csv", b"text/csv") else "json",
            _UNITS.get(values.get(b"epoch", b"").decode("utf-8", "replace"), 1) if values.get(b"epoch") else 0,
            chunk,
            values.get(b"pretty") == b"true",
            b"gzip" in accept_encoding.lower(),
        )

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the head of the response says of it."""
        kind = b"text/csv" if self.kind == "csv" else b"application/json"
        return [(b"Content-Type", kind), *([(b"Content-Encoding", b"gzip")] if self.gzip else [])]

    def writer(self) -> ResultWriter:
        """Return what writes results so."""
        if self.kind == "csv":
            return CSVWriter(self)
        return ChunkWriter(self) if self.chunk else DocumentWriter(self)


class ResultWriter:
    """Writes the results of a request, statement by statement: :meth:`begin`, any number of blocks, :meth:`end`."""

    def __init__(self, form: Format) -> None:
        self._format = form
        self._number = 0
        self._has_times = False
        self._zone: ZoneInfo | None = None

    def begin(self, number: int, *, has_times: bool = False, zone: str = "") -> bytes:
        """Begin the result of a statement.

        :param has_times: whether the first column has times.
        :param zone: of times that are shown as text.
        """
        self._number = number
        self._has_times = has_times
        self._zone = ZoneInfo(zone) if zone not in ("", "UTC") else None
        return b""

    def block(self, block: Block) -> bytes:
        """Write rows."""
        raise NotImplementedError

    def end(self, error: str = "") -> bytes:
        """End the result of a statement."""
        raise NotImplementedError

    def close(self) -> bytes:
        """End the answer."""
        return b""

    def _rows(self, block: Block, unit: int) -> Iterator[list[Any]]:
        for row in block.rows:
            shown = [_go_number(each) if isinstance(each, float) else each for each in row]
            if self._has_times:
                shown[0] = self._time(row[0], unit)
            yield shown

    def _time(self, when: int, unit: int) -> int | str:
        if unit:
            return when // unit if when >= 0 else -(-when // unit)
        return time_text(when, self._zone)


def time_text(when: int, zone: ZoneInfo | None) -> str:
    """Return a time as Go's ``RFC3339Nano`` writes it."""
    seconds, rest = divmod(when, _SECOND)
    local = (_BEGIN + timedelta(seconds=seconds)).astimezone(zone or UTC)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    text = local.strftime("%Y-%m-%dT%H:%M:%S") + fraction
    offset = local.utcoffset() or timedelta()
    if not offset:
        return text + "Z"
    minutes = int(offset.total_seconds()) // 60
    return f"{text}{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def _go_number(number: float) -> float | int:
    """Return a number that is shown as Go shows it: 3.0 as 3."""
    if number.is_integer() and abs(number) < _LARGEST:
        return int(Decimal(repr(number)))
    return number


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
indented = json.JSONEncoder(ensure_ascii=False, indent=4).encode  # as InfluxDB does for pretty=true


def _head(block: Block) -> dict[str, Any]:
    head: dict[str, Any] = {"name": block.name} if block.name else {}
    if block.tags is not None:
        head["tags"] = dict(sorted(block.tags.items()))
    return {**head, "columns": block.columns}


class DocumentWriter(ResultWriter):
    """One JSON document, written while the rows come."""

    def __init__(self, form: Format) -> None:
        super().__init__(form)
        self._line = "\n    " if form.pretty else ""
        self._series: dict[str, Any] | None = None
        self._has_rows = False
        self._is_first = True

    def begin(self, number: int, *, has_times: bool = False, zone: str = "") -> bytes:
        """Begin the result of a statement."""
        super().begin(number, has_times=has_times, zone=zone)
        opening = f'{{"results":[{self._line}' if self._is_first else f",{self._line}"
        self._is_first = False
        self._series = None
        return f'{opening}{{"statement_id":{number}'.encode()

    def block(self, block: Block) -> bytes:
        """Write rows."""
        head = _head(block)
        pieces = []
        if head != self._series:
            pieces.append(',"series":[' if self._series is None else f"{self._closing()},")
            pieces.append(self._line + _json(head)[:-1])
            self._series, self._has_rows = head, False
        if block.rows:
            pieces.append("," if self._has_rows else ',"values":[')
            pieces.append(self._line + _json(list(self._rows(block, self._format.unit)))[1:-1])
            self._has_rows = True
        return "".join(pieces).encode("utf-8", "backslashreplace")

    def _closing(self) -> str:
        return "]}" if self._has_rows else "}"

    def end(self, error: str = "") -> bytes:
        """End the result of a statement."""
        closing = f"{self._closing()}]" if self._series is not None else ""
        return f"{closing}{_error_member(error)}}}".encode()

    def close(self) -> bytes:
        """End the answer."""
        return b'{"results":[]}\n' if self._is_first else f"{self._line[:1]}]}}\n".encode()


def _error_member(error: str) -> str:
    return f',"error":{_json(error)}' if error else ""


class ChunkWriter(ResultWriter):
    """A JSON document for some rows each, on a line of its own; each is held back until it is known what follows."""

    def __init__(self, form: Format) -> None:
        super().__init__(form)
        self._held: dict[str, Any] | None = None

    def begin(self, number: int, *, has_times: bool = False, zone: str = "") -> bytes:
        """Begin the result of a statement."""
        self._held = None
        return super().begin(number, has_times=has_times, zone=zone)

    def block(self, block: Block) -> bytes:
        """Write rows."""
        head, pieces = _head(block), []
        rows = list(self._rows(block, self._format.unit))
        is_select = self._has_times  # else series are neither divided nor marked
        size = self._format.chunk if is_select else sys.maxsize
        while True:
            held = self._held
            is_same = held is not None and {k: v for k, v in held.items() if k != "values"} == head
            if held is None or not is_same or (rows and len(held["values"]) >= size):
                if held is not None:
                    pieces.append(self._document({**held, "partial": True} if is_same else held, partial=is_select))
                held = self._held = {**head, "values": []}
            room = size - len(held["values"])
            held["values"] += rows[:room]
            rows = rows[room:]
            if not rows:
                return b"".join(pieces)

    def _document(self, series: dict[str, Any] | None, *, partial: bool = False, error: str = "") -> bytes:
        result: dict[str, Any] = {"statement_id": self._number}
        if series is not None:
            result["series"] = [series if series["values"] else {k: v for k, v in series.items() if k != "values"}]
        if partial:
            result["partial"] = True
        if error:
            result["error"] = error
        document = {"results": [result]}
        text = indented(document) if self._format.pretty else _json(document)
        return text.encode("utf-8", "backslashreplace") + b"\n"

    def end(self, error: str = "") -> bytes:
        """End the result of a statement."""
        held, self._held = self._held, None
        if error and held is not None:
            return self._document(held, partial=True) + self._document(None, error=error)
        return self._document(held, error=error)


class CSVWriter(ResultWriter):
    """Comma-separated values, with a head for each statement and where the columns change."""

    def __init__(self, form: Format) -> None:
        super().__init__(form)
        self._columns: tuple[str, ...] | None = None
        self._has_begun = False

    def begin(self, number: int, *, has_times: bool = False, zone: str = "") -> bytes:
        """Begin the result of a statement."""
        self._columns = None
        return super().begin(number, has_times=has_times, zone=zone)

    def block(self, block: Block) -> bytes:
        """Write rows."""
        lines = []
        if block.columns != self._columns:
            lines += [""] if self._has_begun else []
            lines.append(_csv_line(["name", "tags", *block.columns]))
            self._columns, self._has_begun = block.columns, True
        tags = ",".join(f"{_tag(key)}={_tag(value)}" for key, value in sorted((block.tags or {}).items()) if value)
        for row in self._rows(block, self._format.unit or 1):
            lines.append(_csv_line([block.name, tags, *map(_csv_value, row)]))
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")

    def end(self, error: str = "") -> bytes:  # noqa: ARG002 (the base's)
        """End the result of a statement."""
        return b""  # InfluxDB shows no errors of statements in CSV, either


def _csv_value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{Decimal(repr(value)):f}" if isinstance(value, float) else str(value)


def _tag(text: str) -> str:
    for each in ",= ":
        text = text.replace(each, f"\\{each}")
    return text


def _csv_line(values: list[str]) -> str:
    """Return a line as Go's ``encoding/csv`` writes it."""
    return ",".join(map(_csv_field, values))


def _csv_field(text: str) -> str:
    if text == "\\." or any(each in text for each in ',"\r\n') or text[:1].isspace():
        return '"' + text.replace('"', '""') + '"'
    return text


class Packer:
    """Compresses an answer, or leaves it as it is."""

    def __init__(self, *, gzip: bool) -> None:
        self._compressor = zlib.compressobj(wbits=31) if gzip else None

    def pack(self, data: bytes) -> bytes:
        """Return what can be sent of more data."""
        return data if self._compressor is None else self._compressor.compress(data)

    def end(self) -> bytes:
        """Return the rest."""
        return b"" if self._compressor is None else self._compressor.flush()
