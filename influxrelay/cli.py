"""The command line for the operator: ``influxrelay queues``, ``dead-letters``, ``verify``, ``repair`` and others."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from influxrelay.config.loader import load
from influxrelay.config.readers import NotAllowed
from influxrelay.config.settings import Config
from influxrelay.config.sharding import time as read_time
from influxrelay.core.errors import InfluxRelayError
from influxrelay.core.text import age, count, size
from influxrelay.operations import render as show
from influxrelay.operations.arguments import USAGE, make_parser
from influxrelay.operations.views import Refused, Request, socket_path

if TYPE_CHECKING:
    from influxrelay.verification.command import Wanted

OK, REFUSED = 0, 1
DIFFERENT, NOT_KNOWN = 1, 2
PATIENCE = 120.0  # seconds that the relay has for its next line

_SHOWN: dict[str, Callable[[dict[str, Any]], str]] = {
    "queues": show.queues,
    "queues drop": show.dropped_queue,
    "queues mark-repaired": show.marked_repaired,
    "queues pause": show.paused,
    "queues resume": show.paused,
    "dead-letters list": show.letters,
    "dead-letters show": show.letter,
    "dead-letters replay": show.replayed,
    "dead-letters drop": show.dropped_letters,
    "reload": show.reloaded,
    "reload check": show.reloaded,
    "shards": show.shards,
    "config": show.converted,
    "verify": show.verified,
    "repair": show.repaired,
}
_JUDGED = {"verify": "equal", "repair": "complete"}  # commands whose exit code is that of what they find


class NoRelay(Refused):
    """Nobody answers at the admin socket."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say, and return the exit code: 0 done, 1 refused or not found, 2 wrong usage.

    Of ``verify``: 0 equal, 1 different, 2 it could not be told; of ``repair``: 0 the backend has all that it lacked, 1
    it has not, 2 it could not be told.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    options = make_parser().parse_args(arguments)
    try:
        request = _request(options)
        local = {"shards": _shards, "config": _convert, "verify": _verify, "repair": _repair}.get(request.command)
        answer = local(options) if local is not None else _ask(options, request)
        print(json.dumps(answer, indent=2) if options.json else _text(request.command, answer), flush=True)
    except InfluxRelayError as error:
        print(f"influxrelay: {show.safe(str(error))}".replace("\n", " "), file=sys.stderr)
        return NOT_KNOWN if options.command in _JUDGED else REFUSED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read it has seen enough
        return REFUSED
    except KeyboardInterrupt:
        return 130
    if request.command in _JUDGED:
        return OK if answer[_JUDGED[request.command]] else DIFFERENT
    return REFUSED if answer.get("failed") else OK


def _text(command: str, answer: dict[str, Any]) -> str:
    """Return an answer for people, without what a terminal would obey; a converted file is what it is."""
    text = _SHOWN[command](answer)
    return text if command == "config" and not answer["output"] else show.safe(text)


# -- what is asked


def _request(options: argparse.Namespace) -> Request:
    """Return what is to be asked.

    :raises SystemExit: wrong usage.
    """
    command = options.command
    if command == "reload" and options.check:
        command = "reload check"
    if command in ("dead-letters replay", "dead-letters drop"):
        if bool(options.ids) == options.all:
            _wrong(command, "either ids or --all is needed")
        if options.backend and not options.all:
            _wrong(command, "--backend goes with --all")
    return Request(command, options.listener, options.backend, tuple(options.ids), options.all)


def _shards(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the configuration says of shards."""
    from influxrelay.operations.shards import shard_maps  # noqa: PLC0415 (it needs Twisted, which takes its time)

    at = _time("shards", "--at", options.at)
    key = None if options.key is None else os.fsencode(options.key)
    config = load(options.config, secrets=False)
    return shard_maps(config, options.listener, key, time.time_ns() if at is None else at)


def _time(command: str, option: str, value: str) -> int | None:
    """Return a time in nanoseconds since 1970; None if it is not given."""
    try:
        return read_time(value)
    except NotAllowed as error:
        _wrong(command, f"{option}: found {value!r}; allowed: {error.allowed}")


def _verify(options: argparse.Namespace) -> dict[str, Any]:
    """Compare the backends of a listener; what is to be known besides goes to standard error."""
    from influxrelay.verification.command import verify  # noqa: PLC0415 (it needs Twisted)

    wanted = _wanted(options)

    def progress(done: int, total: int, found: Any) -> None:
        shown = f"{done} of {count(total, 'measurement')}, {count(found.points, 'point')} read"
        _watch(f"{shown}, {count(len(found.differences), 'difference')}")

    try:
        answer = verify(load(options.config), wanted, lambda request: _ask(options, request), progress)
    finally:
        _watch("")
    _note(answer.listener, answer.notes)
    return answer.show()


def _repair(options: argparse.Namespace) -> dict[str, Any]:
    """Copy to a backend what it lacks; what is to be known besides goes to standard error."""
    from influxrelay.verification.repair_command import Order, Relay, repair  # noqa: PLC0415 (it needs Twisted)

    wanted = _wanted(options)
    order = Order(
        backend=options.backend,
        source=options.source,
        dry_run=options.dry_run,
        overwrite=options.overwrite,
        lost=options.lost,
    )
    if order.source == order.backend:
        _wrong("repair", "--from: a backend cannot be copied from itself")
    config = load(options.config)
    path = options.socket or socket_path(config)
    began = time.monotonic()

    def ask(request: Request) -> dict[str, Any]:
        with contextlib.closing(_lines(path, request)) as lines:
            return _answer(lines, quiet=True)

    def progress(done: int, total: int, copied: int) -> None:
        left = f", {age((time.monotonic() - began) * (total - done) / done)} to go" if done else ""
        _watch(f"{done} of {count(total, 'window')}, {count(copied, 'point')} copied{left}")

    relay = Relay(lambda: _ask_at(options, Request("queues"), config, path), ask)
    try:
        answer = repair(config, wanted, order, relay, progress)
    finally:
        _watch("")
    _note(answer.listener, answer.notes)
    return answer.show()


def _watch(shown: str) -> None:
    """Show how far the work is, in one line, to a person who watches."""
    if sys.stderr.isatty():
        print(end=f"\r{shown}\x1b[K", file=sys.stderr, flush=True)


def _note(listener: str, notes: Sequence[str]) -> None:
    for note in notes:
        print(show.safe(f"{listener}: {note}"), file=sys.stderr)


def _wanted(options: argparse.Namespace) -> Wanted:
    """Return what is selected."""
    from influxrelay.verification.command import Wanted  # noqa: PLC0415 (it needs Twisted)

    command = options.command
    share = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)%", options.share)
    if share is None or not 0 < float(share[1]) <= 100:
        _wrong(command, f"--share: found {options.share!r}; allowed: a part such as 25%, above 0%, at most 100%")
    return Wanted(
        listener=options.listener,
        database=options.database,
        policy=options.retention_policy,
        measurement=options.measurement,
        since=_time(command, "--since", options.since),
        until=_time(command, "--until", options.until),
        share=float(share[1]) / 100,
        user=options.user,
        password_file=options.password_file,
    )


def _convert(options: argparse.Namespace) -> dict[str, Any]:
    """Convert a file, and write the new one where that is asked for; an existing one is replaced with --yes only."""
    from influxrelay.config.conversion import convert  # noqa: PLC0415 (no other command needs it)

    found = convert(options.file or options.config, journal=options.journal)
    answer: dict[str, Any] = {"changes": list(found.changes), "output": options.output, "text": found.text}
    if options.output:
        try:
            with open(options.output, "w" if options.yes else "x", encoding="utf-8", newline="") as file:  # noqa: PTH123 (as given)
                file.write(found.text)
        except FileExistsError:
            raise Refused(f"{options.output} exists already; add --yes to replace it") from None
        except OSError as error:
            raise Refused(f"{options.output}: {error.strerror or error}") from None
    elif not options.json:
        for change in found.changes or ["nothing to change"]:
            print(show.safe(change), file=sys.stderr)
    return answer


def _wrong(command: str, message: str) -> NoReturn:
    print(f"influxrelay {command}: {message} (see influxrelay {command} --help)", file=sys.stderr)
    sys.exit(USAGE)


# -- who is asked


def _ask(options: argparse.Namespace, request: Request) -> dict[str, Any]:
    """Ask the relay, or a stopped relay's journals."""
    config = None if options.socket else load(options.config, secrets=False)
    path = options.socket or (socket_path(config) if config is not None else "")
    if not options.yes and sys.stdin is not None and sys.stdin.isatty():
        _insist_on_yes(options, request, config, path)
    return _ask_at(options, request, config, path)


def _insist_on_yes(options: argparse.Namespace, request: Request, config: Config | None, path: str) -> None:
    """Refuse to drop what a person may not have meant to drop.

    :raises Refused: with what would be dropped.
    """
    if request.command == "dead-letters drop" and request.all:
        raise Refused("this deletes all dead letters; add --yes to confirm")
    if request.command == "queues drop":
        answer = _ask_at(options, Request("queues", request.listener), config, path)
        for row in answer["queues"]:
            if row["backend"] == request.backend and row["writes"]:
                waiting = f"{count(row['writes'], 'write')} ({size(row['bytes'])})"
                raise Refused(f"{row['backend']} will never get the {waiting} in its queue; add --yes to confirm")


def _ask_at(options: argparse.Namespace, request: Request, config: Config | None, path: str) -> dict[str, Any]:
    try:
        if not path:
            raise NoRelay("no admin socket is configured (set admin-socket)")  # noqa: TRY301
        with contextlib.closing(_lines(path, request)) as lines:
            return _answer(lines, quiet=options.json)
    except NoRelay as problem:
        if config is None and not os.path.exists(options.config):  # noqa: PTH110 (a name, not a path of ours)
            raise
        from influxrelay.operations import offline  # noqa: PLC0415 (it needs Twisted, which takes its time to load)

        return offline.run(config or load(options.config, secrets=False), request, str(problem))


def _lines(path: str, request: Request) -> Generator[dict[str, Any], None, None]:
    """Send a request, and yield the lines of the answer.

    :raises NoRelay: nobody is there.
    """
    with socket.socket(socket.AF_UNIX) as relay:
        relay.settimeout(PATIENCE)
        try:
            relay.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoRelay(f"no relay answers at {path}") from None
        except OSError as error:
            raise Refused(f"cannot use the admin socket {path}: {error.strerror or error}") from None
        try:
            relay.sendall(request.line())
            with relay.makefile("rb") as answer:
                for line in answer:
                    yield json.loads(line)
        except TimeoutError:
            raise Refused(f"the relay at {path} has not answered for {PATIENCE:g} s") from None
        except OSError as error:
            raise Refused(f"the relay at {path} has broken the connection: {error.strerror or error}") from None
        except ValueError:
            raise Refused(f"the process at {path} is not a relay") from None


def _answer(lines: Iterator[dict[str, Any]], *, quiet: bool) -> dict[str, Any]:
    """Return the last line's result, and show how far the work is to whoever watches."""
    watched = not quiet and sys.stderr.isatty()
    for line in lines:
        if "error" in line:
            raise Refused(line["error"])
        if "result" in line:
            if watched:
                print(end="\r\x1b[K", file=sys.stderr, flush=True)
            result: dict[str, Any] = line["result"]
            return result
        if watched:
            progress = line["progress"]
            print(end=f"\r{progress['done']} of {progress['total']}", file=sys.stderr, flush=True)
    raise Refused("the relay has broken the connection")
