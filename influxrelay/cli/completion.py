"""What a shell offers while a person types ``influxrelay``: commands, options, and names that there are."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import argcomplete
from argcomplete.completers import FilesCompleter, SuppressCompleter
from argcomplete.shell_integration import shellcode

from influxrelay.cli.arguments import Parser, make_parser
from influxrelay.cli.client import Client
from influxrelay.config.loader import load
from influxrelay.core.errors import InfluxRelayError
from influxrelay.core.text import shortened
from influxrelay.operations.views import Request

PATIENCE = 0.5  # seconds that the relay has to answer while a person waits for the shell
_MOST = 200  # dead letters that are offered
_WORDS = 60  # characters of what is said of one


def script(shell: str) -> str:
    """Return what a shell reads to learn of the command: ``bash``, ``zsh`` or ``fish``."""
    text: str = shellcode(["influxrelay"], shell=shell)
    return text.strip("\n")


def complete() -> None:
    """Answer the shell, which has asked in environment variables, and exit; return if it has not asked."""
    parser = make_parser()
    _teach(parser)
    argcomplete.autocomplete(parser, always_complete_options=False, default_completer=SuppressCompleter())


def _teach(parser: Parser) -> None:
    """Tell each argument of a parser, and of its commands, how it is completed."""
    for action in parser._actions:  # noqa: SLF001 (argparse has no other list)
        completer = _COMPLETERS.get(str(action.metavar)) or _COMPLETERS.get(action.dest)
        if completer is not None:
            action.completer = completer  # type: ignore[attr-defined] # argcomplete's way
    for each in parser.commands.values():
        _teach(each)


def _queues(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield the names of listeners and backends that the running relay knows, or else the configuration."""
    try:
        answer = Client(options.config, options.socket).ask_relay(Request("queues"), patience=PATIENCE)
        yield from ((row["listener"], row["backend"]) for row in answer["queues"])
    except InfluxRelayError:
        try:
            listeners = load(options.config, secrets=False).listeners
        except InfluxRelayError:
            return
        yield from ((listener.name, output.name) for listener in listeners for output in listener.outputs)


def _backends(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    chosen = parsed_args.listener
    return sorted({backend for listener, backend in _queues(parsed_args) if chosen in ("", listener)})


def _listeners(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    return sorted({listener for listener, _ in _queues(parsed_args)})


def _letters(parsed_args: argparse.Namespace, **_: Any) -> Mapping[str, str]:
    """Return the ids of dead letters, with what is said of them."""
    request = Request("dead-letters list", parsed_args.listener)
    try:
        answer = Client(parsed_args.config, parsed_args.socket).ask_relay(request, patience=PATIENCE)
    except InfluxRelayError:
        return {}
    letters = itertools.islice(answer["dead_letters"], _MOST)
    return {each["id"]: shortened(f"{each['backend']}: {each['message']}", _WORDS) for each in letters}


_COMPLETERS: dict[str, Callable[..., Any]] = {
    "FILE": FilesCompleter(),
    "PATH": FilesCompleter(),
    "NEW": FilesCompleter(),
    "DIRECTORY": FilesCompleter(),
    "BACKEND": _backends,
    "ID": _letters,
    "backend": _backends,
    "listener": _listeners,
}
"""By the name of the value in the help, or by the option's own."""
