"""The commands of ``influxrelay`` and their options."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any, NoReturn

from influxrelay import __version__

CONFIG = "/etc/influxrelay/relay.toml"
NOT_DONE = 2  # the exit code for wrong usage, and of a command that could not be carried out
SHELLS = ("bash", "zsh", "fish")
_CODES = "0 done, 2 not done; standard error has the reason."
_WIDTH = 79  # characters of a line of the help that is not made by argparse


class Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line.

    :param words: what the command does, in a sentence.
    :param example: a command line, as a person would write it.
    :param codes: the exit codes.
    :ivar commands: the parsers of the commands, or actions, that may follow.
    """

    def __init__(self, *, words: str = "", example: str = "", codes: str = _CODES, **named: Any) -> None:
        super().__init__(
            add_help=False,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            description=textwrap.fill(words[:1].upper() + words[1:], _WIDTH),
            epilog=f"example:\n  {example}\n\n{textwrap.fill(f'exit codes: {codes}', _WIDTH)}",
            argument_default=argparse.SUPPRESS,
            **named,
        )
        self.example = example
        self.commands: dict[str, Parser] = {}

    def error(self, message: str) -> NoReturn:
        """Exit, and say what is wrong."""
        self.exit(NOT_DONE, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def expect_commands(self, metavar: str, *, required: bool) -> None:
        """Let commands, or actions, follow."""
        self._choices: Any = self.add_subparsers(metavar=metavar, required=required)

    def add_command(self, command: str, words: str, example: str, **named: Any) -> Parser:
        """Add one, which still has to be finished."""
        name = command.rsplit(maxsplit=1)[-1]
        added: Parser = self._choices.add_parser(
            name, help=words.rstrip("."), words=words, example=f"influxrelay {example}", **named
        )
        added.set_defaults(command=command)
        self.commands[name] = added
        return added

    def finish(self) -> None:
        """Add the options that every command has, behind its own."""
        common = self.add_argument_group("options of every command")
        common.add_argument("--config", metavar="FILE", help=f"the relay's configuration (default: {CONFIG})")
        common.add_argument("--socket", metavar="PATH", help="its admin socket (default: as the configuration says)")
        common.add_argument("--json", action="store_true", help="answer in JSON, for scripts")
        common.add_argument("--help", "-h", action="help", help="show this help")


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="influxrelay",
        words="shows and manages what a relay has queued for its backends, compares and repairs them, and reloads the"
        " relay's configuration. If no relay is running, it reads the configured journals.",
        example="influxrelay queues",
        codes="0 done; 1 done, but something differs, is missing or was refused again; 2 not done, and standard error"
        " has the reason; 130 ended by Ctrl-C.",
    )
    parser.set_defaults(
        config=CONFIG,
        socket="",
        listener="",
        json=False,
        yes=False,
        backend="",
        ids=[],
        all=False,
        check=False,
        key=None,
        at="",
        file=None,
        journal="",
        output="",
        database="",
        retention_policy="",
        measurement="",
        since="",
        until="",
        user="",
        password_file="",
        token_file="",
        state_directory="",
        restart=False,
        source="",
        dry_run=False,
        overwrite=False,
        lost=False,
    )
    parser.add_argument("--version", action="version", version=f"influxrelay {__version__}", help="show the version")
    parser.finish()
    parser.expect_commands("COMMAND", required=True)
    _add_top(parser)
    _add_queues(parser)
    _add_dead_letters(parser)
    _add_verify(parser)
    _add_repair(parser)
    _add_reload(parser)
    _add_shards(parser)
    _add_config(parser)
    _add_completion(parser)
    return parser


def _add_listener(parser: Parser, words: str = "only this listener's backends") -> None:
    parser.add_argument("--listener", metavar="NAME", help=words)


def _add_yes(parser: Parser, words: str) -> None:
    parser.add_argument("--yes", action="store_true", help=words)


def _add_top(parser: Parser) -> None:
    top = parser.add_command(
        "top",
        "watch every listener and backend of the running relay until q is pressed: state, queue, rates, losses, dead"
        " letters, and what to do. Without a terminal, print that once.",
        "top",
    )
    _add_listener(top, "only this listener and its backends")
    top.finish()


def _add_queues(parser: Parser) -> None:
    queues = parser.add_command(
        "queues",
        "show each backend's state, what is queued for it, and what to do about problems.",
        "queues --listener metrics",
    )
    _add_listener(queues)
    queues.finish()
    queues.expect_commands("ACTION", required=False)
    for command, words in (
        (
            "queues pause",
            "hold a backend's queue until it is resumed or the relay is restarted (a shared journal: until resumed).",
        ),
        ("queues resume", "resume a backend's queue."),
        ("queues drop", "discard what is queued for a backend, or forget a backend that is no longer configured."),
        ("queues mark-repaired", "mark a backend as repaired, after the data it had lost was copied there."),
    ):
        action = queues.add_command(command, words, f"{command} influx2")
        action.add_argument("backend", metavar="BACKEND", help="the name of the backend")
        _add_listener(action, "the listener, if several have a backend of this name")
        if command == "queues drop":
            _add_yes(action, "confirm it; required at a terminal")
        action.finish()


def _add_dead_letters(parser: Parser) -> None:
    letters = parser.add_command(
        "dead-letters",
        "list, replay or delete writes that a backend refused after they had been acknowledged.",
        "dead-letters list",
    )
    letters.finish()
    letters.expect_commands("ACTION", required=True)
    for command, words, example in (
        ("dead-letters list", "list dead letters.", "dead-letters list --backend influx2"),
        ("dead-letters show", "show a dead letter with its lines.", "dead-letters show 17"),
        (
            "dead-letters replay",
            "send dead letters to their backend again, and delete those that it accepts.",
            "dead-letters replay --all --backend influx2",
        ),
        ("dead-letters drop", "delete dead letters.", "dead-letters drop 17 18"),
    ):
        replays = command == "dead-letters replay"
        codes = {"codes": "0 done; 1 some were refused again; 2 not done, and standard error has the reason."}
        action = letters.add_command(command, words, example, **(codes if replays else {}))
        if command == "dead-letters show":
            action.add_argument("ids", metavar="ID", nargs=1, help="its id, as listed")
        elif command != "dead-letters list":
            action.add_argument("ids", metavar="ID", nargs="*", help="ids, as listed")
            action.add_argument("--all", action="store_true", help="all dead letters")
        if command != "dead-letters show":
            action.add_argument("--backend", metavar="NAME", help="only this backend's")
        _add_listener(action)
        if command == "dead-letters drop":
            _add_yes(action, "confirm --all; required at a terminal")
        action.finish()


def _add_verify(parser: Parser) -> None:
    verify = parser.add_command(
        "verify",
        "compare what the backends of a listener contain.",
        "verify --database telegraf --since 2026-12-01T00:00:00Z",
        codes="0 no difference found; 1 the backends differ; 2 not done, and standard error has the reason.",
    )
    verify.add_argument("--restart", action="store_true", help="start over instead of resuming an interrupted run")
    verify.add_argument(
        "--state-directory",
        metavar="DIRECTORY",
        help="where to keep the progress of a run, so that it can be resumed (default: ~/.local/state/influxrelay)",
    )
    _add_selection(verify)
    verify.finish()


def _add_repair(parser: Parser) -> None:
    repair = parser.add_command(
        "repair",
        "copy to a backend, through its queue, the data that it lacks and another backend has.",
        "repair influx2 --lost",
        codes="0 the backend has all that it lacked; 1 something could not be copied, or a dry run found something to"
        " copy; 2 not done, and standard error has the reason.",
    )
    repair.add_argument("backend", metavar="BACKEND", help="the name of the backend")
    repair.add_argument(
        "--from", dest="source", metavar="BACKEND", help="copy from this backend (default: all that have lost nothing)"
    )
    repair.add_argument(
        "--dry-run", action="store_true", help="only report what would be done; exit code 1 if there is anything to do"
    )
    repair.add_argument("--overwrite", action="store_true", help="replace values that differ from the other backend's")
    repair.add_argument("--lost", action="store_true", help="only the time ranges in which its queue dropped writes")
    _add_selection(repair, share="60%")
    repair.finish()


def _add_selection(parser: Parser, share: str = "100%") -> None:
    """Add the options by which points are selected.

    :param share: unless another is given.
    """
    parser.set_defaults(share=share)
    for name, what, words in (
        ("--database", "NAME", "only this database"),
        ("--retention-policy", "NAME", "only retention policies of this name"),
        ("--measurement", "NAME", "only measurements of this name"),
        ("--since", "TIME", 'from this time on, such as "2026-12-01T00:00:00Z"'),
        ("--until", "TIME", "before this time (default: that of the oldest queued write)"),
        (
            "--share",
            "PERCENT",
            f"the share of the time in which the servers are kept busy, such as 25%% (default: {share}%)",
        ),
        ("--user", "NAME", "for backends whose output has no credentials"),
        ("--password-file", "FILE", "a file with the password of --user"),
        ("--token-file", "FILE", "a file with a token to read from InfluxDB 2.x, if those of the outputs only write"),
    ):
        parser.add_argument(name, metavar=what, help=words)
    _add_listener(parser, "the listener, if there are several; a shard is NAME/SHARD")


def _add_reload(parser: Parser) -> None:
    reload = parser.add_command(
        "reload",
        "reload the configuration, and print what changes, or why nothing does.",
        "reload --check",
        codes="0 done; 2 refused, and standard error has the reason.",
    )
    reload.add_argument("--check", action="store_true", help="only print what would change, or why nothing would")
    reload.finish()


def _add_shards(parser: Parser) -> None:
    shards = parser.add_command(
        "shards",
        "show the shards of each epoch, and where a key goes.",
        "shards acme --at 2026-12-01T00:00:00Z",
    )
    shards.add_argument(
        "key", metavar="KEY", nargs="?", help='a measurement, or a value of the tag; "" is for lines without the tag'
    )
    shards.add_argument("--at", metavar="TIME", help='a time such as "2026-12-01T00:00:00Z" (default: now)')
    _add_listener(shards, "only this listener's shards")
    shards.finish()


def _add_config(parser: Parser) -> None:
    config = parser.add_command(
        "config",
        "convert a configuration file of InfluxDB Relay or its Veepee fork, and keep its meaning and comments.",
        "config old.toml --output relay.toml",
    )
    config.add_argument("file", metavar="FILE", nargs="?", help="the file to convert (default: that of --config)")
    config.add_argument(
        "--journal", metavar="DIRECTORY", help="replace buffers in memory with journals in this directory"
    )
    config.add_argument("--output", metavar="NEW", help="write to this file instead of standard output")
    _add_yes(config, "replace the file if it exists")
    config.finish()


def _add_completion(parser: Parser) -> None:
    completion = parser.add_command(
        "completion",
        "print a shell script that completes commands, options and names. Debian's package installs it.",
        "completion bash",
    )
    completion.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")
    completion.finish()
