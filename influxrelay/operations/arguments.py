"""The commands of ``influxrelay`` and their options."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from influxrelay import __version__

CONFIG = "/etc/influxrelay/relay.toml"
USAGE = 2  # the exit code for wrong usage


class Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit, and say what is wrong."""
        self.exit(USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _common() -> Parser:
    """Return the options that may stand before and behind a command; each parser needs them as objects of its own."""
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--config", metavar="FILE", help=f"the relay's configuration (default: {CONFIG})")
    common.add_argument("--socket", metavar="PATH", help="its admin socket (default: as the configuration says)")
    common.add_argument("--listener", metavar="NAME", help="only this listener's backends")
    common.add_argument("--json", action="store_true", help="answer in JSON, for scripts")
    common.add_argument(
        "--yes", action="store_true", help="drop, or replace a file, without being asked for this option"
    )
    return common


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="influxrelay",
        parents=[_common()],
        description="Shows and manages what a relay has queued for its backends, and reloads its configuration. If no"
        " relay is running, it reads the journals that are configured.",
        epilog="Exit codes: 0 done, 1 refused or not found, 2 wrong usage.",
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
        share="100%",
        user="",
        password_file="",
        source="",
        dry_run=False,
        overwrite=False,
        lost=False,
    )
    parser.add_argument("--version", action="version", version=f"influxrelay {__version__}")
    topics = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(parent: Any, command: str, words: str) -> Any:
        added = parent.add_parser(
            command.rsplit(maxsplit=1)[-1],
            parents=[_common()],
            help=words,
            description=words[0].upper() + words[1:],
            argument_default=argparse.SUPPRESS,
        )
        added.set_defaults(command=command)
        return added

    queues = add(topics, "queues", "show each backend's state, what is queued for it, and what to do about problems.")
    actions = queues.add_subparsers(metavar="ACTION")
    for command, words in (
        ("queues drop", "discard what is queued for a backend, or forget a backend that is no longer configured."),
        ("queues mark-repaired", "mark a backend as repaired, after the data it had lost was copied there."),
        ("queues pause", "send nothing from a backend's queue, until it is resumed or the relay is restarted."),
        ("queues resume", "resume a backend's queue."),
    ):
        add(actions, command, words).add_argument("backend", metavar="BACKEND")

    letters = add(
        topics, "dead-letters", "handle writes that a backend refused for good, although they had been acknowledged."
    )
    actions = letters.add_subparsers(metavar="ACTION", required=True)
    for command, words in (
        ("dead-letters list", "list them."),
        ("dead-letters show", "show one with its lines."),
        ("dead-letters replay", "send them to their backend once more, and delete those that it accepts."),
        ("dead-letters drop", "delete them."),
    ):
        action = add(actions, command, words)
        if command == "dead-letters show":
            action.add_argument("ids", metavar="ID", nargs=1)
            continue
        action.add_argument("--backend", metavar="NAME", help="only this backend's")
        if command != "dead-letters list":
            action.add_argument("ids", metavar="ID", nargs="*")
            action.add_argument("--all", action="store_true", help="all of them")

    reload = add(topics, "reload", "reload the configuration, and print what changes, or why nothing does.")
    reload.add_argument("--check", action="store_true", help="only print what would change, or why nothing would")

    shards = add(topics, "shards", "show the shards of each epoch, and where a key goes.")
    shards.add_argument(
        "key", metavar="KEY", nargs="?", help='a measurement, or a value of the tag; "" is for lines without the tag'
    )
    shards.add_argument("--at", metavar="TIME", help='a time such as "2026-12-01T00:00:00Z" (default: now)')

    config = add(
        topics,
        "config",
        "convert a configuration file of InfluxDB Relay or its Veepee fork, and keep its meaning and comments.",
    )
    config.add_argument("file", metavar="FILE", nargs="?", help="the file (default: the configuration)")
    config.add_argument("--journal", metavar="DIRECTORY", help="replace buffers in memory by journals in here")
    config.add_argument("--output", metavar="NEW", help="write the new file here instead of to standard output")

    verify = add(
        topics,
        "verify",
        "compare what the InfluxDB 1.x backends of a listener contain. Exit codes: 0 equal, 1 different, 2 not known.",
    )
    _add_selection(verify)

    repair = add(
        topics,
        "repair",
        "copy to a backend what it lacks and another has, through its queue. Exit codes: 0 it has all that it lacked,"
        " 1 something could not be copied, 2 not known.",
    )
    repair.add_argument("backend", metavar="BACKEND")
    repair.add_argument("--from", dest="source", metavar="BACKEND", help="copy from this one (default: all in sync)")
    repair.add_argument("--dry-run", action="store_true", help="change nothing; exit code 1 if something is to be done")
    repair.add_argument("--overwrite", action="store_true", help="replace values that differ from those of --from")
    repair.add_argument("--lost", action="store_true", help="only the time in which its queue has dropped writes")
    _add_selection(repair)
    return parser


def _add_selection(parser: Parser) -> None:
    """Add the options by which points are selected."""
    for name, what, words in (
        ("--database", "NAME", "only this database"),
        ("--retention-policy", "NAME", "only retention policies of this name"),
        ("--measurement", "NAME", "only measurements of this name"),
        ("--since", "TIME", 'from this time on, such as "2026-12-01T00:00:00Z"'),
        ("--until", "TIME", "up to this time, exclusive (default: as far as nothing is queued)"),
        ("--share", "PERCENT", "keep the servers busy for this part of the time, such as 25%% (default: 100%%)"),
        ("--user", "NAME", "for backends whose output has no credentials"),
        ("--password-file", "FILE", "its password"),
    ):
        parser.add_argument(name, metavar=what, help=words)
