"""What a backend's answer means."""

from __future__ import annotations

import enum
import json
import re
from email.utils import parsedate_to_datetime
from time import time

from influxrelay.core.write import LINES, REMOTE_WRITE, Reply

MAX_RETRY_AFTER = 3600.0  # seconds; a backend that asks for more is asked again after this
_NOT_NOW = frozenset((408, 425, 429))
_PERMANENT = re.compile(
    # InfluxDB 1.x answers these with a 5xx in some versions, and no retry heals them (coordinator/points_writer.go,
    # tsdb/store.go, tsdb/shard.go).
    rb"retention policy not found|partial write|unable to parse|points beyond retention policy|field type conflict"
    rb"|contains invalid UTF-8",
    re.IGNORECASE,
)
_MISSING = re.compile(rb'database not found|bucket \\?"[^"]*\\?" not found')
_NO_ORGANIZATION = re.compile(rb"organization .*not found")


_STALE = re.compile(
    # Of remote writes: Prometheus' storage errors (storage/interface.go), Thanos', Mimir's identifiers.
    rb"out[ -]of[ -]order|too old|out of bounds|duplicate sample|err-mimir-sample-",
    re.IGNORECASE,
)
_TOO_LATE = re.compile(rb"out[ -]of[ -]order|too old", re.IGNORECASE)
_ROLLS_BACK_NOTHING = re.compile(rb"err-mimir-")


STALE = "stale"
"""The reason of a failure whose verdict is :attr:`Verdict.STALE`."""

NOT_READY = "not ready"
"""The reason why a write waits whose backend has said :attr:`Verdict.NOT_READY` to those before it."""


class Verdict(enum.Enum):
    """What an answer says of the write, and of the backend."""

    TAKEN = "2xx"
    REFUSED = "4xx: the write is wrong; this settles it, and the client is shown this answer"
    MISDIRECTED = (
        "404 or 405 that is not InfluxDB's: settles the write as any 4xx, but says nothing of the write itself"
    )
    NOT_READY = "404 that says that the backend lacks the database: settles the write as any 4xx, and may heal"
    PERMANENT = "5xx with a text that cannot heal: the write is wrong, but another backend may still take it"
    STALE = "a remote write with samples that the backend has, or newer ones: another backend may still take it"
    NOT_NOW = "anything else: the backend is in trouble, and the same write may be taken later"


def judge(reply: Reply, kind: str = LINES) -> Verdict:
    """Read an answer to a write of this kind."""
    status = reply.status
    if 200 <= status < 300:
        return Verdict.TAKEN
    if kind == REMOTE_WRITE and is_stale(reply):
        return Verdict.STALE
    if is_not_ready(reply):
        return Verdict.NOT_READY
    if 400 <= status < 500 and status not in _NOT_NOW:
        return Verdict.MISDIRECTED if is_misdirected(reply) else Verdict.REFUSED
    if 500 <= status < 600 and _PERMANENT.search(reply.body):
        return Verdict.PERMANENT
    return Verdict.NOT_NOW


def reason_of(reply: Reply, verdict: Verdict) -> str:
    """Return why an answer means what it does: the text that has decided, as it is listed here, else the status."""
    expression = {Verdict.STALE: _STALE, Verdict.PERMANENT: _PERMANENT}.get(verdict)
    found = expression.search(reply.body) if expression is not None else None
    if found is None:
        return str(reply.status)
    return found[0].decode("ascii", "replace").lower().replace("out-of-order", "out of order")


def is_stale(reply: Reply) -> bool:
    """Tell whether an answer to a remote write says that its samples come too late, or once more.

    That is normal where delivery is at least once. The status does not tell: Prometheus 2.42 says 500 to some, Thanos
    409 to all.
    """
    status = reply.status
    if not 400 <= status < 600 or status in (429, 503):
        return False
    return status == 409 or _STALE.search(reply.body) is not None


def rolls_back(reply: Reply) -> bool:
    """Tell whether a backend that answers so has taken nothing of a body for one such sample in it.

    That is Prometheus (``storage/remote/write_handler.go``); Mimir and Thanos take the rest.
    """
    return reply.status != 409 and _ROLLS_BACK_NOTHING.search(reply.body) is None


def comes_too_late(reply: Reply) -> bool:
    """Tell whether a stale answer speaks of a sample that is older than what the backend takes of its series.

    The samples before that one are refused, too; a duplicate or a sample from the future says nothing of others.
    """
    return _TOO_LATE.search(reply.body) is not None


def is_not_ready(reply: Reply) -> bool:
    """Tell whether the backend lacks the database (in 2.x the bucket): it is well, and may be given it.

    The texts are those of ``serveWrite`` in 1.x' ``services/httpd/handler.go`` and of 2.x' ``http/legacy``.
    """
    return reply.status == 404 and _MISSING.search(reply.body) is not None


def is_misdirected(reply: Reply) -> bool:
    """Tell whether a 404 or 405 says that the write was sent to the wrong place, and nothing of the write itself.

    It comes from a proxy, from a path that takes no writes, or from a server without the output's organization: the
    queue should hold, and the backend's alarm be raised. InfluxDB 1.x repeats its errors in a header, 2.x and 3.x give
    them a code and a message; anything else is not InfluxDB's. The operator may have said so of other answers.
    """
    if reply.held:
        return True
    if reply.status not in (404, 405) or is_not_ready(reply):
        return False
    if not reply.complete or _NO_ORGANIZATION.search(reply.body):
        return True
    if any(name == b"X-Influxdb-Error" for name, _ in reply.headers):
        return False
    try:
        error = json.loads(reply.body)
    except ValueError:
        return True
    return not (isinstance(error, dict) and {"code", "message"} <= error.keys())


def lacks_organization(reply: Reply) -> bool:
    """Tell whether a server of 2.x does not have the organization that the output names."""
    return reply.status == 404 and _NO_ORGANIZATION.search(reply.body) is not None


def is_presentable(reply: Reply) -> bool:
    """Tell whether a client may see this answer when every backend has failed: a 5xx, or a 4xx that means "not now"."""
    return 500 <= reply.status < 600 or reply.status in _NOT_NOW or is_not_ready(reply)


def retry_after(reply: Reply) -> float:
    """Return the seconds to wait by the ``Retry-After`` header (RFC 9110, 10.2.3): 0 without one, an hour at most."""
    value = dict(reply.headers).get(b"Retry-After", b"").strip()
    if value.isdigit():
        return min(float(value), MAX_RETRY_AFTER)
    try:
        seconds = parsedate_to_datetime(value.decode("ascii")).timestamp() - time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def excerpt(reply: Reply) -> str:
    """Return status and first words of an answer, for the log."""
    text = reply.body[:200].decode("utf-8", "replace").strip()
    return f"{reply.status}: {text}" if text else str(reply.status)
