"""What answers where Prometheus, and whoever speaks like it, sends remote writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote_plus
from weakref import WeakKeyDictionary

import attrs
from twisted.internet.task import Cooperator
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from influxrelay.core.errors import InvalidRequest
from influxrelay.core.replies import json_error
from influxrelay.core.token_bucket import TokenBucket
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.http.head import Head
from influxrelay.http.interfaces import AnyFanOut
from influxrelay.http.refusals import TOO_MUCH, method_not_allowed, rate_limited
from influxrelay.http.request import Request
from influxrelay.lineprotocol.query_string import parse, without
from influxrelay.lineprotocol.scanner import Steps
from influxrelay.remotewrite.bodies import Counts, check_slowly, count_slowly
from influxrelay.remotewrite.headers import (
    CONTENT_TYPES,
    OWN_PARAMETERS,
    TENANTS,
    VERSION_HEADER,
    destination_precision,
    has_counts,
    only_counts,
    version_of,
    with_media_type,
    written,
)
from influxrelay.remotewrite.snappy import BodyError, BodyTooLargeError, unpack, unpacked_size

_VERSION = VERSION_HEADER.lower()
_AT_ONCE = 8  # slices of the work for a body that are done before all others


@attrs.frozen
class _Target:
    """Where a remote write goes, as its head says.

    :ivar version: 1 or 2.
    """

    destination: Destination
    query: bytes
    consistency: str
    version: int


@attrs.frozen
class _Prepared:
    """A write that is ready for the backends.

    :ivar size: bytes, unpacked.
    :ivar counts: what is in it, if nobody else may tell the client.
    :ivar division: who gets what of it, if not all get all.
    """

    write: Write
    size: int
    counts: Counts
    division: Any


class RemoteWriteResource(Resource):
    """Takes Prometheus' remote writes, 1.0 and 2.0, for the backends.

    :param cooperator: does the work for large bodies, beside everything else.
    :param names_database: whether clients have to name a database, as at InfluxDB's path.
    :ivar writes_of: how many of each version were given to the backends, with their ``bytes`` as they came, unpacked.
    """

    isLeaf = True

    def __init__(self, fan_out: AnyFanOut, cooperator: Cooperator, *, names_database: bool) -> None:
        super().__init__()
        self.writes_of = {1: 0, 2: 0}
        self.bytes = 0
        self._fan_out = fan_out
        self._cooperator = cooperator
        self._names_database = names_database
        self.reconfigure(
            database="", default_retention_policy="", max_decoded_size=0, versions=(1, 2), limiter=None, consistency=""
        )

    @property
    def writes(self) -> int:
        """How many were given to the backends."""
        return sum(self.writes_of.values())

    def reconfigure(
        self,
        *,
        database: str,
        default_retention_policy: str,
        max_decoded_size: int,
        versions: Sequence[int],
        consistency: str,
        limiter: TokenBucket | None,
    ) -> None:
        """Let other settings hold for the next request.

        :param database: of writes that name none.
        :param versions: those that every backend which takes remote writes understands.
        :param consistency: of writes that ask for none.
        """
        self._database = database
        self._default_retention_policy = default_retention_policy
        self._max_decoded_size = max_decoded_size
        self._versions = versions
        self._consistency = consistency
        self._limiter = limiter
        self._targets: WeakKeyDictionary[Head, _Target] = WeakKeyDictionary()  # clients send the same few heads

    def render(self, request: Request) -> None:
        """Answer a request of any method."""
        if request.method == b"OPTIONS":
            request.respond(Reply(204, ((b"Allow", b"POST"),)))
        elif request.method != b"POST":
            request.refuse(method_not_allowed(b"POST"))
        else:
            try:
                self._write(request)
            except InvalidRequest as error:
                request.refuse(json_error(error.status, error.message))

    def _write(self, request: Request) -> None:
        head = request.head
        target = self._targets.get(head)
        if target is None:
            target = self._targets[head] = self._target(head)
        if self._limiter is not None:
            seconds = self._limiter.take()
            if seconds:
                request.refuse(rate_limited(seconds))
                return
        work = self._read(request, request.take_body(), target)
        for _ in range(_AT_ONCE):
            if next(work, None) is None:
                return
        self._cooperator.coiterate(work)

    def _target(self, head: Head) -> _Target:
        """Read the head of a request.

        :raises InvalidRequest: 400, 415.
        """
        version = version_of(head.header(b"content-type"))
        encoding = head.encoding.strip().lower()
        if version == 0 or encoding not in (b"", b"snappy"):
            expected = " or ".join(each.decode() for each in CONTENT_TYPES)
            raise InvalidRequest(415, f"remote writes are {expected}, with the encoding snappy")
        if version not in self._versions:
            raise InvalidRequest(415, "remote write 2.0 is not supported here, since a backend is InfluxDB: send 1.0")
        query = head.query
        if not self._names_database and not any(each.startswith(b"db=") for each in query.split(b"&")):
            query = b"&".join(filter(None, (query, b"db=" + quote_plus(self._database).encode())))
        where = parse(query, self._default_retention_policy)
        content_type = head.header(b"content-type") or CONTENT_TYPES[0]
        query = with_media_type(without(where.forwarded, *OWN_PARAMETERS), content_type, head.header(_VERSION))
        tenant = [(name, value) for name in TENANTS if (value := head.header(name.lower()))]
        destination = Destination(
            where.database,
            where.retention_policy,
            destination_precision(tenant),
            (head.authorization, where.username, where.password),
        )
        return _Target(destination, query, where.consistency, version)

    def _read(self, request: Request, body: bytes, target: _Target) -> Steps[None]:
        """Look into a body bit by bit, since it may be large, and then submit the write.

        A client that has gone meanwhile changes nothing: a complete write is executed.
        """
        try:
            size = unpacked_size(body, self._max_decoded_size)
            if not request.reserve(size):
                request.refuse(TOO_MUCH)
                return
            message = unpack(body)
            yield from check_slowly(message)
            counts = Counts()
            if target.version == 2 and (target.consistency or self._consistency) == "any":
                counts = yield from count_slowly(message)  # nobody else may tell the client
            del message
            write = Write(
                target.destination,
                target.query,
                target.destination.credentials[0],
                body,
                mergeable=target.version == 1,
            )
            division = (
                (yield from self._fan_out.divide_slowly(write)) if size and self._fan_out.divides_series else None
            )
        except InvalidRequest as error:
            request.refuse(json_error(error.status, error.message))
        except BodyTooLargeError:
            request.refuse(json_error(413, "Request Entity Too Large"))
        except BodyError as error:
            request.refuse(json_error(400, f"not a remote write: {error}"))
        except Exception:  # noqa: BLE001 (one request's trouble must not be that of others)
            request.fail(Failure())
        else:
            self._submit(request, target, _Prepared(write, size, counts, division))

    def _submit(self, request: Request, target: _Target, prepared: _Prepared) -> None:
        if not prepared.size:
            request.respond(Reply(204, written(prepared.counts) if target.version == 2 else ()))
            return
        self.writes_of[target.version] += 1
        self.bytes += prepared.size
        answered = self._fan_out.submit(prepared.write, target.consistency, prepared.division)
        answered.addCallback(_present, request, target.version, prepared.counts)
        answered.addErrback(request.fail)


def _present(reply: Reply, request: Request, version: int, counts: Counts) -> None:
    """Show an answer: a 2xx as 204, with what was written if the version asks for that; everything else as it is."""
    if reply.status >= 300:
        request.respond(reply)
    elif version == 1:
        request.respond(Reply(204))
    else:
        request.respond(Reply(204, only_counts(reply.headers) if has_counts(reply) else written(counts)))
