"""Regular expressions of RE2: matching takes time linear in the length of the text, whatever the expression."""

from __future__ import annotations

from typing import Any

import re2

MAX_PROGRAM = 5000  # instructions; in the worst case each costs a few nanoseconds for every byte of a name


class ExpressionError(ValueError):
    """Not a valid expression, or one that compiles to more than :data:`MAX_PROGRAM` instructions."""


def compile_expression(text: str) -> Any:
    """Return a compiled expression whose ``search`` takes bytes.

    :raises ExpressionError: with RE2's message.
    """
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
