"""What the parser has made of a SELECT as text again, for a SELECT that has been changed."""

from __future__ import annotations

import re

import attrs

from influxrelay.influxql.ast import (
    Binary,
    Call,
    Distinct,
    Expression,
    Field,
    Literal,
    Measurement,
    Parentheses,
    Reference,
    Regex,
    Select,
    Wildcard,
)
from influxrelay.influxql.expressions import PRECEDENCE

_SPECIAL = re.compile(r"[\\'\"\n]")
_ESCAPED = {"\n": "\\n", "\\": "\\\\", '"': '\\"', "'": "\\'"}


def quoted(name: str, quote: str = '"') -> str:
    """Return a name between quotes; with ``'`` a string."""

    def escape(found: re.Match[str]) -> str:
        return found[0] if found[0] in "'\"" and found[0] != quote else _ESCAPED[found[0]]

    return quote + _SPECIAL.sub(escape, name) + quote


@attrs.frozen
class Writer:
    """Writes statements.

    :ivar now: what stands for ``now()``, nanoseconds since the epoch.
    """

    now: int

    def select(self, select: Select) -> str:
        """Return the text of a SELECT; one with INTO is not for this."""
        parts = [
            "SELECT",
            ", ".join(map(self._field, select.fields)),
            "FROM",
            ", ".join(map(self.source, select.sources)),
        ]
        if select.condition is not None:
            parts += ["WHERE", self.expression(select.condition)]
        if select.dimensions:
            parts += ["GROUP BY", ", ".join(map(self.expression, select.dimensions))]
        if "fill" in select.clauses or select.fill != "null":
            value = select.fill if select.fill_value is None else _number(select.fill_value)
            parts.append(f"fill({value})")
        if select.ordered:
            parts.append("ORDER BY time " + ("DESC" if select.descending else "ASC"))
        bounds = select.bounds
        for word, bound in (
            ("LIMIT", bounds.limit),
            ("OFFSET", bounds.offset),
            ("SLIMIT", bounds.slimit),
            ("SOFFSET", bounds.soffset),
        ):
            if bound:
                parts.append(f"{word} {bound}")
        if select.zone:
            parts.append(f"tz({quoted(select.zone, chr(39))})")
        return " ".join(parts)

    def _field(self, field: Field) -> str:
        text = self.expression(field.expression)
        return f"{text} AS {quoted(field.alias)}" if field.alias else text

    def source(self, source: Measurement | Select) -> str:
        """Return what stands behind FROM."""
        if isinstance(source, Select):
            return f"({self.select(source)})"
        name = self.expression(source.regex) if source.regex is not None else quoted(source.name)
        if source.database:
            return f"{quoted(source.database)}.{quoted(source.policy) if source.policy else ''}.{name}"
        return f"{quoted(source.policy)}.{name}" if source.policy else name

    def expression(self, expression: Expression) -> str:  # noqa: PLR0911 (one for each kind)
        """Return the text of an expression."""
        if isinstance(expression, Literal):
            return _literal(expression)
        if isinstance(expression, Regex):
            return "/" + expression.pattern.replace("/", "\\/") + "/"
        if isinstance(expression, Wildcard):
            return f"*::{expression.type}" if expression.type else "*"
        if isinstance(expression, Reference):
            return _name(expression.name) + (f"::{expression.type}" if expression.type else "")
        if isinstance(expression, Distinct):
            return f"DISTINCT {quoted(expression.name)}"
        if isinstance(expression, Parentheses):
            return f"({self.expression(expression.inner)})"
        if isinstance(expression, Call):
            if expression.name == "now" and not expression.arguments:
                return f"{self.now}ns"
            return f"{expression.name}({', '.join(map(self.expression, expression.arguments))})"
        return self._binary(expression)

    def _binary(self, binary: Binary) -> str:
        """Return the text of an operation, with the parentheses that its tree asks for."""
        strength = PRECEDENCE[binary.operator]
        left, right = self.expression(binary.left), self.expression(binary.right)
        if isinstance(binary.left, Binary) and PRECEDENCE[binary.left.operator] < strength:
            left = f"({left})"
        if isinstance(binary.right, Binary) and PRECEDENCE[binary.right.operator] <= strength:
            right = f"({right})"
        return f"{left} {binary.operator} {right}"


def _name(name: str) -> str:
    return name if name in ("time", "null") else quoted(name)


def _literal(literal: Literal) -> str:
    value = literal.value
    if literal.kind == "string":
        return quoted(str(value), "'")
    if literal.kind == "boolean":
        return "true" if value else "false"
    if literal.kind == "duration":
        return f"{value}ns"
    if isinstance(value, int | float):
        return _number(value)
    raise ValueError("a list stands in no SELECT")


def _number(value: float) -> str:
    """Return a number without an exponent: InfluxQL knows none."""
    if isinstance(value, int):
        return str(value)
    text = repr(value)
    if "e" not in text:
        return text
    digits = f"{value:.400f}".rstrip("0")
    return digits + "0" if digits.endswith(".") else digits
