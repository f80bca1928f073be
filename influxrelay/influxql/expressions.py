"""Expressions, by recursive descent (``influxdata/influxql``, ``parser.go``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from influxrelay.influxql.ast import (
    Binary,
    Call,
    Distinct,
    Expression,
    Literal,
    Parentheses,
    Reference,
    Span,
    Wildcard,
)
from influxrelay.influxql.scanner import Token
from influxrelay.influxql.tokens import NestingError, QueryError, TokenReader

MAX_DEPTH = 100  # of parentheses, signs and subqueries; InfluxDB has no bound, but Python's stack has
PRECEDENCE = {
    **dict.fromkeys(("OR",), 1),
    **dict.fromkeys(("AND",), 2),
    **dict.fromkeys(("=", "!=", "=~", "!~", "<", "<=", ">", ">="), 3),
    **dict.fromkeys(("+", "-", "|", "^"), 4),
    **dict.fromkeys(("*", "/", "%", "&"), 5),
}
_TYPES = frozenset(("float", "integer", "unsigned", "string", "boolean"))


class ExpressionParser(TokenReader):
    """Reads expressions.

    :ivar nows: where ``now()`` has been called.
    """

    def __init__(self, text: str, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__(text, parameters)
        self._depth = 0
        self.nows: list[Span] = []

    @contextmanager
    def nested(self) -> Iterator[None]:
        """Go one level deeper.

        :raises NestingError: that is too deep.
        """
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NestingError("too deeply nested", self.scanner.position)
        yield
        self._depth -= 1

    def expression(self) -> Expression:
        """Read an expression with its operators, the ones that bind stronger first."""
        operands: list[Expression] = [self.operand()]
        operators: list[str] = []
        while (token := self.token()).kind in PRECEDENCE:
            while operators and PRECEDENCE[operators[-1]] >= PRECEDENCE[token.kind]:
                self._join(operands, operators)
            operators.append(token.kind)
            if token.kind in ("=~", "!~"):
                found = self.regex()
                if found is None:
                    raise self.error(self.token(), "regex")
                operands.append(found)
            else:
                operands.append(self.operand())
        self.unscan()
        while operators:
            self._join(operands, operators)
        return operands[0]

    @staticmethod
    def _join(operands: list[Expression], operators: list[str]) -> None:
        right = operands.pop()
        operands[-1] = Binary(operators.pop(), operands[-1], right)

    def operand(self) -> Expression:
        """Read what stands beside an operator."""
        with self.nested():
            return self._operand_within()

    def _operand_within(self) -> Expression:  # noqa: PLR0911 (one for each kind)
        token = self.token()
        if token.kind == "(":
            inner = self.expression()
            self.expect(")")
            return Parentheses(inner)
        if token.kind == "IDENT":
            if self.scan().kind == "(":
                return self._call(token.value, token.start)
            self.unscan()
            self.unscan()
            return self._reference()
        if token.kind == "DISTINCT":
            return self._distinct(token)
        if token.kind == "*":
            return self._wildcard()
        if token.kind in ("+", "-"):
            return self._signed(token)
        if token.kind == "REGEX":
            return self.compiled(token)
        return self._literal(token)

    def _literal(self, token: Token) -> Literal:
        kind, text = token.kind, token.value
        if kind == "STRING":
            return Literal("string", text)
        if kind == "NUMBER":
            return Literal("number", float(text))
        if kind == "INTEGER":
            if int(text) >= 2**64 or int(text) < -(2**63):
                raise QueryError("unable to parse integer", token.start)
            return Literal("integer", int(text))
        if kind in ("TRUE", "FALSE"):
            return Literal("boolean", kind == "TRUE")
        if kind == "DURATION_VALUE":
            return Literal("duration", self.nanoseconds_of(token))
        if kind == "PARAMETER":
            raise QueryError(f"missing parameter: {text}", token.start)
        raise self.error(token, "identifier", "string", "number", "bool")

    def _signed(self, sign: Token) -> Expression:
        token = self.token()
        if token.kind not in ("NUMBER", "INTEGER", "DURATION_VALUE", "(", "IDENT"):
            raise self.error(token, "identifier", "number", "duration", "(")
        self.unscan()
        operand, factor = self.operand(), -1 if sign.kind == "-" else 1
        if not isinstance(operand, Literal):
            return Binary("*", Literal("integer", factor), operand)
        value: Any = operand.value
        if factor < 0 and operand.kind == "integer" and value > 2**63:
            raise QueryError(f"constant -{value} underflows int64", sign.start)
        return Literal(operand.kind, value * factor)

    def _distinct(self, token: Token) -> Expression:
        following = self.scan()
        if following.kind == "(":
            return self._call("distinct", token.start)
        if following.kind != "SPACE":
            raise self.error(following, "(", "identifier")
        return Distinct(self.name())

    def _wildcard(self) -> Wildcard:
        if self.scan().kind != "::":
            self.unscan()
            return Wildcard()
        token = self.scan()
        if token.kind not in ("FIELD", "TAG"):
            raise self.error(token, "field", "tag")
        return Wildcard(token.kind.lower())

    def _reference(self) -> Reference:
        name = ".".join(self.segments())
        if self.scan().kind != "::":
            self.unscan()
            return Reference(name)
        token = self.scan()
        kind = token.kind.lower() if token.kind in ("FIELD", "TAG") else token.value.lower()
        if token.kind not in ("FIELD", "TAG") and (token.kind != "IDENT" or kind not in _TYPES):
            raise self.error(token, *sorted(_TYPES), "field", "tag")
        return Reference(name, kind)

    def _call(self, name: str, start: int) -> Call:
        name = name.lower()
        arguments: list[Expression] = []
        found = self.regex()
        if found is not None:
            arguments.append(found)
        elif self.scan().kind == ")":
            span = (start, self.last_end)
            if name == "now":
                self.nows.append(span)
            return Call(name, (), span)
        else:
            self.unscan()
            arguments.append(self.expression())
        while self.take(","):
            arguments.append(self.regex() or self.expression())
        token = self.scan()
        if token.kind != ")":
            raise self.error(token, ")")
        return Call(name, tuple(arguments), (start, token.end))
