"""What the operator is told of queues and dead letters, as plain values for JSON; and what is asked for.

The relay that runs (:mod:`influxrelay.operations.admin_socket`) and the command line that reads a stopped relay's
journal (:mod:`influxrelay.cli.offline`) say it in the same words.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote, quote_plus

import attrs

from influxrelay.config.settings import Config
from influxrelay.core.errors import InfluxRelayError
from influxrelay.core.text import count, iso, shortened, size, text
from influxrelay.core.write import LINES, STATEMENT, Write
from influxrelay.delivery.statements import scope_of, shown_statement
from influxrelay.journal.records import DeadLetter, Drop
from influxrelay.lineprotocol.gzip_body import decoded_beginning, decoded_body
from influxrelay.lineprotocol.query_string import without
from influxrelay.remotewrite.exposition import lines as remote_write_lines
from influxrelay.remotewrite.headers import is_version_2

T = TypeVar("T")

_FIRST_LINE = 200  # characters of it in a list
DROP_REASONS = {
    "full": "the queue was full",
    "age": "they were older than a queue may keep",
    "operator": "an operator dropped them",
    "damaged": "they were damaged, or somebody removed them",
    "stopped": "the relay stopped, and they were in memory only",
    "unqueued": "it failed while another backend took them, and has no queue",
}

REPORT = "verify report"
"""The command with which a relay is told what the last verification has found."""

MAX_SOCKET_PATH = 107  # bytes


def socket_path(config: Config) -> str:
    """Return where the admin socket is; empty for nowhere.

    A journal whose path is too long for a socket (unix(7)) has none, unless ``admin-socket`` names a place for it.
    """
    if config.admin_socket is None or config.admin_socket:
        return config.admin_socket or ""
    listeners = config.listeners
    journals = [each.journal for each in listeners if each.journal and not each.journal.shared]
    path = str(Path(journals[0].directory) / "admin.sock") if journals else ""
    return path if len(path.encode()) <= MAX_SOCKET_PATH else ""


class Refused(InfluxRelayError):
    """A command that cannot be done; ``str()`` is one line for the operator."""


@attrs.frozen
class Request:
    """What the operator asks for.

    :ivar listener: empty for all.
    :ivar backend: a name, or empty for all.
    :ivar ids: of dead letters, as they were listed.
    :ivar all: every dead letter instead of ``ids``.
    :ivar write: of a repair: ``database``, ``retention_policy``, ``lines`` with nanoseconds, the ``source`` they are
        from, and ``authorization`` where the output has no credentials; for a Prometheus ``samples``, the body of a
        remote write in base64, instead of the first three.
    :ivar report: of a repair: how many ``points`` these are; of a verification: what it has found.
    """

    command: str
    listener: str = ""
    backend: str = ""
    ids: tuple[str, ...] = ()
    all: bool = False
    write: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    report: Mapping[str, int] = attrs.field(factory=dict)

    @classmethod
    def parse(cls, line: bytes) -> Request:
        """Read it from a line of JSON.

        :raises Refused: it is none.
        """
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            raise Refused("the request is no JSON") from None
        if not isinstance(fields, dict):
            raise Refused("the request is no JSON object")
        ids, write, report = fields.get("ids") or [], fields.get("write") or {}, fields.get("report") or {}
        command, listener, backend = (fields.get(name) or "" for name in ("command", "listener", "backend"))
        texts = [command, listener, backend, *(write.values() if isinstance(write, dict) else [None])]
        numbers = report.values() if isinstance(report, dict) else [None]
        if not (
            isinstance(ids, list)
            and all(isinstance(each, str) for each in texts)
            and all(isinstance(each, int) for each in numbers)
        ):
            raise Refused("the request has a field of a wrong type")
        return cls(command, listener, backend, tuple(map(str, ids)), fields.get("all") is True, write, report)

    def line(self) -> bytes:
        """Return it as a line of JSON."""
        return json.dumps(attrs.asdict(self)).encode() + b"\n"


@attrs.frozen(kw_only=True)
class Row:
    """One backend's queue.

    :ivar state: ``up``, ``trouble``, ``paused``, ``behind``, ``removed``, ``stopped``.
    :ivar reason: of its trouble; a backend that is paused may have one, too.
    :ivar queue: ``journal``, ``memory`` or ``none``.
    :ivar delivered_by: another relay that delivers to it; empty if this one does.
    :ivar writes: that wait, and their ``bytes``; None where it is not known, or where there is no queue.
    :ivar oldest: when the oldest of them was accepted.
    :ivar missing: databases that the backend does not have.
    :ivar answers: how many requests were answered with anything but a 2xx, by what that means and by reason.
    :ivar refused: how many acknowledged writes the backend has refused for good, in the same way.
    :ivar queue_used: bytes that its queue takes; a journal is that of all backends of the listener.
    :ivar queue_limit: bytes that it may take; None for no limit, or if it is not known.
    :ivar repairable: whether ``influxrelay repair`` can copy to it what it has lost.
    """

    listener: str
    backend: str
    state: str
    queue: str
    reason: str = ""
    delivered_by: str = ""
    location: str = ""
    writes: int | None = None
    bytes: int | None = None
    oldest: float | None = None
    drops: tuple[Drop, ...] = ()
    dead_letters: int | None = None
    journal: str = ""
    journal_trouble: str = ""
    missing: tuple[str, ...] = ()
    answers: tuple[tuple[str, str, int], ...] = ()
    refused: tuple[tuple[str, str, int], ...] = ()
    queue_used: int | None = None
    queue_limit: int | None = None
    repairable: bool = False

    @classmethod
    def parse(cls, shown: dict[str, Any]) -> Self:
        """Return what :meth:`show` has shown."""
        fields = {name: shown[name] for name in attrs.fields_dict(cls)}
        drops = (
            Drop(
                shown["backend"],
                each["reason"],
                each["writes"],
                each["bytes"],
                _when(each["first"]),
                _when(each["last"]),
            )
            for each in shown["drops"]
        )
        oldest = None if shown["oldest"] is None else _when(shown["oldest"])
        counts = {
            name: tuple((each["means"], each["reason"], each["count"]) for each in shown[name])
            for name in ("answers", "refused")
        }
        return cls(**{**fields, "drops": tuple(drops), "oldest": oldest, "missing": tuple(shown["missing"]), **counts})

    def show(self, now: float) -> dict[str, Any]:
        """Return it for JSON, with what is wrong in words; times are ISO 8601 in UTC, ages seconds."""
        shown = attrs.asdict(self)
        shown["oldest"] = None if self.oldest is None else iso(self.oldest)
        shown["oldest_age"] = None if self.oldest is None else round(max(0.0, now - self.oldest), 3)
        shown["drops"] = [
            {
                "reason": each.reason,
                "writes": each.writes,
                "bytes": each.bytes,
                "first": iso(each.first),
                "last": iso(each.last),
            }
            for each in self.drops
        ]
        for name, counts in (("answers", self.answers), ("refused", self.refused)):
            shown[name] = [{"means": means, "reason": why, "count": number} for means, why, number in counts]
        shown["advice"] = list(self._advice())
        return shown

    def _advice(self) -> Iterable[str]:
        """Say what is wrong, and what to do."""
        waiting = count(self.writes or 0, "write")
        if self.state == "removed":
            yield (
                "it is no longer in the configuration, and gets no writes: put it back there, or forget it with:"
                f" {self._command('queues drop')}"
            )
        if self.state == "stopped" and self.writes:
            yield f"{waiting} in the journal: start the relay, and they are sent in order"
        if self.state == "paused":
            kept = (
                "what comes is kept" if self.queue == "journal" else "what comes is kept in memory as long as it fits"
            )
            yield f"an operator has paused it; {kept}: let it go on with: {self._command('queues resume')}"
        if self.reason:
            yield self._advice_on_trouble(waiting)
        if self.missing:
            names = ", ".join(f'"{each}"' for each in self.missing)
            yield f"it has no database {names}: create it there, and what waits for it is sent"
        elif self.state == "behind":
            yield f"it is catching up, {waiting} to go: nothing to do, unless the number keeps growing"
        if self.journal_trouble:
            yield (
                f"the journal in {self.journal} does not work ({self.journal_trouble}): see to the disk's space and"
                " permissions; until then what a backend misses may be lost"
            )
        for each in self.drops:
            why = DROP_REASONS.get(each.reason, each.reason)
            yield (
                f"lost: {count(each.writes, 'write')} ({size(each.bytes)}), because {why}; accepted from"
                f" {iso(each.first)} to {iso(each.last)}: {'once it takes writes again, ' if self.reason else ''}"
                f"{how_to_repair(self.listener, self.backend, by_command=self.repairable)}"
            )
        if self.dead_letters:
            yield (
                f"it has refused {count(self.dead_letters, 'write')} for good (dead letters): see why with: influxrelay"
                f" dead-letters list --backend {shlex.quote(self.backend)} --listener {shlex.quote(self.listener)}"
            )

    def _advice_on_trouble(self, waiting: str) -> str:
        where = f" at {self.location}" if self.location else ""
        if self.queue == "none":
            kept = "it has no queue, and what it misses is lost (set buffer-size-mb, or a journal)"
        elif not self.writes:
            kept = "what it misses is kept"
        else:
            kept = f"{waiting} kept for it, in order"
        return f"it takes no writes ({self.reason}): check that it runs and can be reached{where}; {kept}"

    def _command(self, words: str) -> str:
        return command_for(words, self.listener, self.backend)


def command_for(words: str, listener: str, backend: str) -> str:
    """Return a command on a backend as it is typed into a shell."""
    return f"influxrelay {words} {shlex.quote(backend)} --listener {shlex.quote(listener)}"


def how_to_repair(listener: str, backend: str, *, by_command: bool) -> str:
    """Say how a backend gets what its queue has lost."""
    if by_command:
        return f"copy them from another backend with: {command_for('repair', listener, backend)} --lost"
    return f"copy that time from another backend, then: {command_for('queues mark-repaired', listener, backend)}"


def only(found: list[tuple[str, T]], what: str, listener: str, known: Iterable[str] = ()) -> T:
    """Return what was found in one listener only.

    :param found: with the names of the listeners.
    :param known: what there is instead.
    :raises Refused: there is none, or more than one.
    """
    if not found:
        there_is = ", ".join(sorted(set(known)))
        place = f" in listener {listener}" if listener else ""
        raise Refused(f"there is no {what}{place}" + (f"; there is: {there_is}" if there_is else ""))
    if len(found) > 1:
        raise Refused(f"{what} is in more than one listener: add --listener {' or '.join(name for name, _ in found)}")
    return found[0][1]


# -- dead letters


def summary(listener: str, number: str, letter: DeadLetter) -> dict[str, Any]:
    """Return one line of the list of dead letters, without credentials."""
    destination = letter.write.destination
    is_text = destination.kind == LINES
    first = next((line for line in lines_of(letter.write) if line.strip()), "")
    return {
        "id": number,
        "time": iso(letter.time),
        "listener": listener,
        "backend": letter.backend,
        "database": _database(letter.write),
        "retention_policy": text(destination.retention_policy),
        "kind": destination.kind,
        "precision": text(destination.precision.partition(b"\n")[0]) if is_text else "",
        "status": letter.status,
        "message": _without_secrets(_message(letter.message), letter.write),
        "bytes": len(letter.write.body),
        "first_line": shortened(first, _FIRST_LINE),
    }


def _database(write: Write) -> str:
    if write.destination.kind == STATEMENT:
        return ", ".join(sorted(map(text, scope_of(write.query).databases)))
    return text(write.destination.database)


def lines_of(write: Write) -> Iterable[str]:
    """Return the beginning of what a write says, line by line.

    It is all of a remote write, in Prometheus' text format, and of a statement, without passwords.
    """
    if write.destination.kind == LINES:
        return map(text, decoded_beginning(write).splitlines())
    if write.destination.kind == STATEMENT:
        return [shown_statement(write)]
    return remote_write_lines(write.body, 2 if is_version_2(write.query) else 1)


def whole(listener: str, number: str, letter: DeadLetter) -> dict[str, Any]:
    """Return a dead letter with its lines, without credentials; ``base64`` is there if these do not say all."""
    shown = summary(listener, number, letter)
    del shown["first_line"]
    shown["query"] = text(without(letter.write.query, b"u", b"p"))
    if letter.write.destination.kind == LINES:
        body = decoded_body(letter.write)
        shown["lines"] = text(body)
        is_whole = "\\x" not in shown["lines"] or shown["lines"].encode() == body
    else:
        body, is_whole = letter.write.body, letter.write.destination.kind == STATEMENT  # a password may be in its body
        shown["lines"] = "\n".join(lines_of(letter.write))
    if not is_whole:
        shown["base64"] = base64.b64encode(body).decode()
    return shown


def _message(body: str) -> str:
    """Return the error in InfluxDB's JSON, or the whole body if it is something else."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return body
    return error if isinstance(error, str) else body


def _without_secrets(message: str, write: Write) -> str:
    """Replace the client's secrets in a message: a server may have repeated them there."""
    authorization, _, password = (text(each) for each in write.destination.credentials)
    for secret in (authorization, authorization.rpartition(" ")[2], password):
        for spelling in (secret, quote(secret), quote_plus(secret)) if secret else ():
            message = message.replace(spelling, "***")
    return message


# -- words


def _when(shown: str) -> float:
    return datetime.fromisoformat(shown).timestamp()
