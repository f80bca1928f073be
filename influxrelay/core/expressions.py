"""Regular expressions of RE2: matching takes time linear in the length of the text, whatever the expression."""

from __future__ import annotations

from typing import Any

MAX_PROGRAM = 5000  # instructions; in the worst case each costs a few nanoseconds for every byte of a name


class ExpressionError(ValueError):
    """Not a valid expression, or one that compiles to more than :data:`MAX_PROGRAM` instructions."""


def compile_expression(text: str) -> Any:
    """Return a compiled expression whose ``search`` takes bytes.

    :raises ExpressionError: with RE2's message.
    """
    import re2  # noqa: PLC0415 (it takes 2.5 MB, and many a relay has no expression)

    options = re2.Options()
    options.never_capture = True  # captures nobody asks for make a search twenty times as expensive
    options.log_errors = False
    try:
        expression = re2.compile(text.encode(), options)
    except re2.error as error:
        message = error.args[0]
        raise ExpressionError(message.decode(errors="replace") if isinstance(message, bytes) else message) from None
    size = max(expression.programsize, expression.reverseprogramsize)
    if size > MAX_PROGRAM:
        raise ExpressionError(f"it compiles to {size} instructions, the limit is {MAX_PROGRAM}")
    return expression


def matches(expression: str, text: str) -> bool:
    """Tell whether an expression is found in a text."""
    import re2  # noqa: PLC0415 (as above)

    return re2.search(expression, text) is not None


def why_invalid(expression: str) -> str:
    """Tell in RE2's words what is wrong with an expression; empty if nothing is."""
    import re2  # noqa: PLC0415 (as above)

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(expression, options)
    except re2.error as error:
        return str(error)
    return ""
