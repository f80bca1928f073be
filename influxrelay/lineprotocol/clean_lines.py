"""Regular expressions for *clean* lines, on which both of InfluxDB's readings agree; each matches many lines at once.

What they do not match is read by :mod:`influxrelay.lineprotocol.scanner`. No loop in them goes back, either.
"""

from __future__ import annotations

import re

from influxrelay.lineprotocol.scanner import BOOLEAN

# Clean lines: a backslash escapes one byte, and that is neither a backslash nor a newline.
_NAME = rb"[^\\, \t\0\n#][^\\, \n]*+(?>\\[^\\\n][^\\, \n]*+)*+"
_KEY = rb"[^\\,= \n]++(?>\\[^\\\n][^\\,= \n]*+)*+"
SERIES = _NAME + rb"(?>," + _KEY + rb"=" + _KEY + rb")*+"
STRING = rb'"[^"\\]*+(?>\\.[^"\\]*+)*+"'
ONE_LINE_STRING = rb'"[^"\\\n]*+(?>\\[^\n][^"\\\n]*+)*+"'
_FLOAT = rb"-?+(?:[0-9]{1,24}+(?>\.[0-9]{0,24}+)?+|\.[0-9]{1,24}+)(?>[eE][+-]?+[0-9]{1,2}+)?+"  # never infinite
IN_RANGE = rb"-?+[0-9]{1,18}+i|" + _FLOAT + rb"(?=[, \n]|\Z)|" + BOOLEAN
END = rb"(?:\n|\Z)"


def fields(value: bytes) -> bytes:
    """Match fields whose values match ``value``."""
    field = _KEY + rb"=(?:" + value + rb")"
    return field + rb"(?>," + field + rb")*+"


def lines(*kinds: bytes) -> re.Pattern[bytes]:
    """Match as many lines as there are of some kinds, which include the newline."""
    return re.compile(rb"(?>" + rb"|".join(kinds) + rb")++", re.DOTALL)


# Lines that stay as they are: comments, blank lines, and what has a timestamp, whatever its values look like.
FINISHED = lines(
    SERIES + rb" " + fields(STRING + rb'|[^\\",= \n]++') + rb" -?+[0-9]++" + END,
    rb'#[^\\"\n]*+' + END,
    rb"[ \t\0]*+\n",
)
BLANK = lines(rb'#[^\\"\n]*+' + END, rb"[ \t\0]*+\n")
# Valid lines without a timestamp; every newline in a match is the end of a line.
BARE = lines(SERIES + rb" " + fields(rb"[0-9]{1,19}+u|" + IN_RANGE + rb"|" + ONE_LINE_STRING) + END)
