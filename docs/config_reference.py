"""The reference of the configuration, made of what the code checks and of what ``etc/relay.toml`` explains.

``.. config-reference::`` becomes a section for each table of the file. A key that the code knows and the file does not,
or the other way round, ends the build.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import tomlkit
from docutils import nodes
from docutils.parsers.rst import Directive

from influxrelay.config import schema as config_keys
from influxrelay.config.loader import load
from influxrelay.config.readers import NotAllowed
from influxrelay.core.errors import ConfigError

EXAMPLE = Path(__file__).parent.parent / "etc" / "relay.toml"
_KEY = re.compile(r"(# )?([a-z_-]+) = (.+)")
_STRUCTURE = {
    "admin",
    "http",
    "udp",
    "tcp",
    "filter",
    "output",
    "shard",
    "epoch",
}  # keys that are tables of their own in the file


@attrs.define
class Key:
    """One key.

    :ivar default: as it is written; empty where the explanation says what is without it.
    """

    name: str
    default: str


@attrs.define
class Group:
    """What is explained together.

    :ivar paragraphs: of the explanation; those whose lines are indented are lists.
    """

    keys: list[Key] = attrs.field(factory=list)
    paragraphs: list[list[str]] = attrs.field(factory=lambda: [[]])


@attrs.define
class Table:
    """One table of the file; its name is empty for the keys above all tables."""

    name: str
    text: str = ""
    groups: list[Group] = attrs.field(factory=list)

    @property
    def known(self) -> dict[str, Callable[[object], Any]]:
        """Return the keys that the code knows, each with its reader."""
        known: dict[str, Callable[[object], Any]] = getattr(
            config_keys, self.name.upper().replace(".", "_") or "CONFIG"
        )
        return {name: read for name, read in known.items() if name not in _STRUCTURE}


def read_example(text: str) -> list[Table]:
    """Read the tables that a file with explanations has, each once."""
    tables = {"": Table("")}
    table, intro, group = tables[""], "", Group()
    for line in [*text.splitlines(), ""]:
        if line.startswith("# ----"):
            intro = line.strip("# -")
        elif line.startswith("["):
            table = tables.setdefault(line.strip("[]"), Table(line.strip("[]"), intro))
        elif key := _KEY.fullmatch(line):
            group.keys.append(Key(key[2], key[3] if key[1] else ""))
        elif line.startswith("#"):
            _add_line(group, line[2:])
        else:
            if group.keys and group.paragraphs[0]:
                table.groups.append(group)
            group = Group()
    return list(tables.values())


def _add_line(group: Group, line: str) -> None:
    """Add a line of an explanation; a list begins and ends a paragraph."""
    last = group.paragraphs[-1]
    if not line or (last and line.startswith(" ") != last[-1].startswith(" ")):
        group.paragraphs.append([])
    if line:
        group.paragraphs[-1].append(line)


def check(tables: list[Table]) -> None:
    """Raise an error if the tables have other keys than the code."""
    for table in tables:
        shown = {key.name for group in table.groups for key in group.keys}
        if shown != table.known.keys():
            raise ValueError(f"[{table.name}]: in one place only: {sorted(shown ^ table.known.keys())}")


def allowed(read: Callable[[object], Any]) -> str:
    """Return what a reader says is allowed; one that wants something in a file says more of an empty one."""
    words = ""
    for value in (object(), "/dev/null"):
        try:
            read(value)
        except NotAllowed as error:
            words = error.allowed
    return words


def is_required(table: str, name: str) -> bool:
    """Tell whether the example is refused without a key."""
    document = tomlkit.parse(EXAMPLE.read_text(encoding="utf-8")).unwrap()
    found: list[dict[str, Any]] = [document]
    for part in filter(None, table.split(".")):
        found = [each for above in found for each in _as_list(above.get(part, []))]
    for each in found:
        each.pop(name, None)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "relay.toml"
        path.write_text(tomlkit.dumps(document), encoding="utf-8")
        try:
            load(path)
        except ConfigError:
            return True
    return False


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class ConfigReference(Directive):
    """``.. config-reference::``."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        self.state.document.settings.env.note_dependency(str(EXAMPLE))
        tables = read_example(EXAMPLE.read_text(encoding="utf-8"))
        check(tables)
        return [self._section(table) for table in tables]

    def _section(self, table: Table) -> nodes.section:
        section = nodes.section(ids=[nodes.make_id(f"config {table.name or 'top'}")])
        title = nodes.title()
        if table.name:
            title += nodes.literal(text=f"[{table.name}]" if table.name == "admin" else f"[[{table.name}]]")
        else:
            title += nodes.Text("Global settings")
        section += title
        if table.text:
            section += nodes.paragraph(text=table.text)
        groups = [self._group(table, group) for group in table.groups]
        section += nodes.definition_list("", *groups, classes=["config"])
        self.state.document.note_implicit_target(section, section)
        return section

    def _group(self, table: Table, group: Group) -> nodes.definition_list_item:
        term = nodes.term(ids=[nodes.make_id(f"{table.name} {key.name}") for key in group.keys])
        for index, key in enumerate(group.keys):
            term += [nodes.Text(", ")] * bool(index)
            term += nodes.literal(text=key.name)
        definition = nodes.definition()
        for lines in group.paragraphs:
            if lines and lines[0].startswith(" "):
                definition += nodes.literal_block(text="\n".join(line[4:] for line in lines), language="none")
            elif lines:
                definition += nodes.paragraph("", "", *_with_literals(" ".join(lines)))
        definition += self._facts(table, group)
        return nodes.definition_list_item("", term, definition)

    def _facts(self, table: Table, group: Group) -> nodes.bullet_list:
        """List what the code says of the keys."""
        facts = nodes.bullet_list()
        for key in group.keys:
            paragraph = nodes.paragraph(text="Allowed: ")
            if len(group.keys) > 1:
                paragraph = nodes.paragraph("", "", nodes.literal(text=key.name), nodes.Text(": "))
            paragraph += _with_literals(allowed(table.known[key.name]))
            if key.default:
                paragraph += [nodes.Text("; default: "), nodes.literal(text=key.default)]
            elif is_required(table.name, key.name):
                paragraph += nodes.Text("; required")
            facts += nodes.list_item("", paragraph)
        return facts


def _with_literals(text: str) -> Iterator[nodes.Node]:
    """Yield a text in which what stands between double quotes is code."""
    for index, part in enumerate(re.split(r'("[^"]*")', text)):
        if part:
            yield nodes.literal(text=part) if index % 2 else nodes.Text(part)


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("config-reference", ConfigReference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
