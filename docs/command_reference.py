"""The reference of the command line: ``.. command-reference::`` becomes a section with the help of each command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

from influxrelay.cli.arguments import Parser, make_parser

WIDTH = 90  # characters of a line


def parsers(parser: Parser) -> Iterator[Parser]:
    """Yield the parser of each command, those of actions behind that of their command."""
    for each in parser.commands.values():
        yield each
        yield from parsers(each)


class CommandReference(Directive):
    """A section for each command."""

    def run(self) -> list[nodes.Node]:
        """Make them."""
        columns, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), str(WIDTH + 2)  # argparse's name for the width
        try:
            return [_section(each) for each in parsers(make_parser())]
        finally:
            if columns is None:
                del os.environ["COLUMNS"]
            else:
                os.environ["COLUMNS"] = columns


def _section(parser: Parser) -> nodes.section:
    text = parser.format_help().rstrip("\n")
    section = nodes.section(ids=[nodes.make_id(parser.prog)], names=[nodes.fully_normalize_name(parser.prog)])
    section += nodes.title(text=parser.prog)
    section += nodes.literal_block(text, text, language="none")
    return section


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("command-reference", CommandReference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
