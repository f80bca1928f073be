"""Carries out a command of ``influxrelay``, and tells what has become of it."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from influxrelay.cli import render as show
from influxrelay.cli import top
from influxrelay.cli.arguments import NOT_DONE, make_parser
from influxrelay.cli.client import Client
from influxrelay.cli.terminal import Work
from influxrelay.config.loader import load
from influxrelay.config.readers import NotAllowed
from influxrelay.config.sharding import time as read_time
from influxrelay.core.errors import InfluxRelayError
from influxrelay.core.text import count, size
from influxrelay.operations.views import Refused, Request

if TYPE_CHECKING:
    from influxrelay.verification.command import Wanted

OK, NO = 0, 1
_SOON = 5.0  # seconds that the relay has for its answer to who watches
NOBODY_READS = 141  # the exit code of a program that SIGPIPE has ended, as shells have it

Answer = dict[str, Any]
_SHOWN: dict[str, Callable[[Answer], str]] = {
    "top": top.text,
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
    "shards": show.shards,
    "config": show.converted,
    "completion": lambda answer: str(answer["text"]),
    "verify": show.verified,
    "repair": show.repaired,
}
_GOOD: dict[str, Callable[[Answer], bool]] = {
    "verify": lambda answer: bool(answer["equal"]),
    "repair": lambda answer: bool(answer["complete"]),
    "dead-letters replay": lambda answer: not answer["failed"],
}
"""Tells whether a command has done all that was wanted; the others have if they have not failed."""


def run(arguments: Sequence[str] | None) -> int:
    """Do what the arguments say, and return the exit code.

    :raises SystemExit: the usage is wrong, or help was asked for.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    options = make_parser().parse_args(arguments)
    command = options.command
    try:
        answer = _HERE.get(command, _ask)(options)
        if answer is None:
            return OK
        print(json.dumps(answer, indent=2) if options.json else _text(command, answer), flush=True)
    except InfluxRelayError as error:
        _tell(options, [str(error)])
        return NOT_DONE
    except BrokenPipeError:
        _write_no_more()
        return NOBODY_READS
    except OSError as error:
        _write_no_more()
        _tell(options, [f"cannot write what was found: {error.strerror or error}"])
        return NOT_DONE
    good = _GOOD.get(command)
    return OK if good is None or good(answer) else NO


def _write_no_more() -> None:
    """Let the end of the program not try once more to write what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _text(command: str, answer: Answer) -> str:
    """Return an answer for people, without what a terminal would obey; what is to be a file is as it is."""
    text = _SHOWN[command](answer)
    as_it_is = command == "completion" or (command == "config" and not answer["output"])
    return text if as_it_is else show.safe(text)


def _tell(options: argparse.Namespace, lines: Iterable[str]) -> None:
    """Write lines to standard error, in the form that all commands have for it."""
    for line in lines:
        print(show.safe(f"influxrelay {options.command}: {line}".replace("\n", " ")), file=sys.stderr)


def _wrong(options: argparse.Namespace, message: str) -> NoReturn:
    """End with wrong usage, as the parser does."""
    _tell(options, [f"{message} (see influxrelay {options.command} --help)"])
    sys.exit(NOT_DONE)


# -- commands for the relay


def _ask(options: argparse.Namespace) -> Answer:
    """Ask the relay, or a stopped relay's journals."""
    request = _request(options)
    client = Client(options.config, options.socket)
    if not options.yes and sys.stdin is not None and sys.stdin.isatty():
        _insist_on_yes(client, request)
    with Work(options.command) as work:
        return client.ask(request, work)


def _request(options: argparse.Namespace) -> Request:
    """Return what is to be asked.

    :raises SystemExit: wrong usage.
    """
    command = options.command
    if command == "reload" and options.check:
        command = "reload check"
    if command in ("dead-letters replay", "dead-letters drop"):
        if bool(options.ids) == options.all:
            _wrong(options, "either ids or --all is needed")
        if options.backend and not options.all:
            _wrong(options, "--backend goes with --all")
    return Request(command, options.listener, options.backend, tuple(options.ids), options.all)


def _insist_on_yes(client: Client, request: Request) -> None:
    """Refuse to drop what a person may not have meant to drop.

    :raises Refused: with what would be dropped.
    """
    if request.command == "dead-letters drop" and request.all:
        raise Refused("this deletes all dead letters; add --yes to confirm")
    if request.command == "queues drop":
        answer = client.ask(Request("queues", request.listener))
        for row in answer["queues"]:
            if row["backend"] == request.backend and row["writes"]:
                waiting = f"{count(row['writes'], 'write')} ({size(row['bytes'])})"
                raise Refused(f"{row['backend']} will never get the {waiting} in its queue; add --yes to confirm")


def _top(options: argparse.Namespace) -> Answer | None:
    """Show how the relay is, again and again if a person looks; then there is nothing to print at the end."""
    client = Client(options.config, options.socket)

    def ask() -> Answer:
        return client.ask_relay(Request("top", options.listener), patience=_SOON)

    if options.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return ask()
    from influxrelay.cli.live import show as show_live  # noqa: PLC0415 (only who watches waits for it)

    show_live(ask)
    return None


# -- commands for the servers


def _verify(options: argparse.Namespace) -> Answer:
    """Compare the backends of a listener; what is to be known besides goes to standard error."""
    from influxrelay.verification.command import verify  # noqa: PLC0415 (it needs Twisted, which takes its time)

    wanted = _wanted(options)
    client = Client(options.config, options.socket)
    with Work(options.command) as work:

        def progress(done: float, total: int, found: Any) -> None:
            shown = f"{int(done)} of {count(total, 'window')}, {count(found.points, 'point')} read"
            work(done, total, f"{shown}, {count(len(found.differences), 'difference')}")

        answer = verify(load(options.config), wanted, client.ask, progress, lambda words: _tell(options, [words]))
    _tell(options, [f"{answer.listener}: {each}" for each in (*answer.not_compared, *answer.notes)])
    return answer.show()


def _repair(options: argparse.Namespace) -> Answer:
    """Copy to a backend what it lacks; what is to be known besides goes to standard error."""
    from influxrelay.verification.order import Order  # noqa: PLC0415 (it needs Twisted)
    from influxrelay.verification.relay_writer import Relay  # noqa: PLC0415
    from influxrelay.verification.repair_command import repair  # noqa: PLC0415

    wanted = _wanted(options)
    order = Order(
        backend=options.backend,
        source=options.source,
        dry_run=options.dry_run,
        overwrite=options.overwrite,
        lost=options.lost,
    )
    if order.source == order.backend:
        _wrong(options, "--from: a backend cannot be copied from itself")
    client = Client(options.config, options.socket)
    relay = Relay(client.ask, client.ask_relay, tell=lambda words: _tell(options, [words]))
    with Work(options.command) as work:

        def progress(done: float, total: int, copied: int) -> None:
            work(done, total, f"{int(done)} of {count(total, 'window')}, {count(copied, 'point')} copied")

        answer = repair(load(options.config), wanted, order, relay, progress)
    _tell(options, [f"{answer.listener}: {each}" for each in (*answer.not_compared, *answer.notes)])
    return answer.show()


def _wanted(options: argparse.Namespace) -> Wanted:
    """Return what is selected."""
    from influxrelay.verification.command import Wanted  # noqa: PLC0415 (it needs Twisted)

    share = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)%", options.share)
    if share is None or not 0 < float(share[1]) <= 100:
        _wrong(options, f"--share: found {options.share!r}; allowed: a part such as 25%, above 0%, at most 100%")
    return Wanted(
        listener=options.listener,
        database=options.database,
        policy=options.retention_policy,
        measurement=options.measurement,
        since=_time(options, "--since", options.since),
        until=_time(options, "--until", options.until),
        share=float(share[1]) / 100,
        user=options.user,
        password_file=options.password_file,
        token_file=options.token_file,
        state_directory=options.state_directory,
        restart=options.restart,
    )


def _time(options: argparse.Namespace, option: str, value: str) -> int | None:
    """Return a time in nanoseconds since 1970; None if it is not given."""
    try:
        return read_time(value)
    except NotAllowed as error:
        _wrong(options, f"{option}: found {value!r}; allowed: {error.allowed}")


# -- commands for the configuration


def _shards(options: argparse.Namespace) -> Answer:
    """Return what the configuration says of shards."""
    from influxrelay.cli.shards import shard_maps  # noqa: PLC0415 (it needs Twisted, which takes its time)

    at = _time(options, "--at", options.at)
    key = None if options.key is None else os.fsencode(options.key)
    config = load(options.config, secrets=False)
    return shard_maps(config, options.listener, key, time.time_ns() if at is None else at)


def _convert(options: argparse.Namespace) -> Answer:
    """Convert a file, and write the new one where that is asked for; an existing one is replaced with --yes only."""
    from influxrelay.config.conversion import convert, save  # noqa: PLC0415 (no other command needs it)

    found = convert(options.file or options.config, journal=options.journal)
    answer: Answer = {"changes": list(found.changes), "output": options.output, "text": found.text}
    if options.output:
        try:
            save(found.text, Path(options.output), replace=options.yes)
        except FileExistsError:
            raise Refused(f"{options.output} exists already; add --yes to replace it") from None
        except OSError as error:
            raise Refused(f"{options.output}: {error.strerror or error}") from None
    elif not options.json:
        _tell(options, found.changes or ["nothing to change"])
    return answer


def _completion(options: argparse.Namespace) -> Answer:
    """Return what a shell has to read."""
    from influxrelay.cli.completion import script  # noqa: PLC0415 (no other command needs it)

    return {"shell": options.shell, "text": script(options.shell)}


_HERE: dict[str, Callable[[argparse.Namespace], Answer | None]] = {
    "top": _top,
    "shards": _shards,
    "config": _convert,
    "completion": _completion,
    "verify": _verify,
    "repair": _repair,
}
"""The commands that are not simply asked of the relay."""
