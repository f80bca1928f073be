"""Readers of single values of the configuration file.

Each takes a value as TOML has it and returns what the relay uses: ``None`` for the default (usually written as an empty
string, as in InfluxDB Relay and the Veepee fork). Each raises :class:`NotAllowed` for anything else, and none knows
where in the file the value is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from influxrelay.config.durations import parse_duration
from influxrelay.core.expressions import ExpressionError, compile_expression

LOOPBACK = "127.0.0.1"


class NotAllowed(Exception):
    """A value that is not allowed.

    :ivar allowed: what is.
    :ivar reason: what is wrong with the value, where that is not obvious. It does not show the value, which may be a
        secret.
    """

    def __init__(self, allowed: str, reason: str = "") -> None:
        super().__init__(allowed, reason)
        self.allowed = allowed
        self.reason = reason


class Substituted(str):
    """A string with the values of environment variables in it.

    :ivar written: the string as the file has it, for errors.
    """

    __slots__ = ("written",)
    written: str

    def __new__(cls, value: str, written: str) -> Self:
        """Make a string that remembers how it was written."""
        made = super().__new__(cls, value)
        made.written = written
        return made


# How errors show values


def kind(value: object) -> str:
    """Return the name of a value's TOML type."""
    kinds = {bool: "a boolean", int: "an integer", float: "a float", str: "a string", list: "an array", dict: "a table"}
    return next((name for each, name in kinds.items() if isinstance(value, each)), "a date or time")


def shown(value: object) -> str:
    """Return a value as an error may show it: short, printable and without anything that may be a secret.

    Left out are the user and query of a URL, what is inside a table, and the values of environment variables.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = value.written if isinstance(value, Substituted) else value
        text = re.sub(r"(?s)^([A-Za-z]+://)?.*@", r"\1***@", text)
        return shortened(repr(re.sub(r"(?s)(?<=[\w/])([?#]).+", r"\1***", text)))
    return shortened(repr(value)) if isinstance(value, int | float) else kind(value)


def shortened(text: str, limit: int = 60) -> str:
    """Return a text cut to its first ``limit`` characters."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


# Plain values


def string(value: object) -> str | None:
    """Read a name, a path or another text on one line."""
    if not isinstance(value, str) or not value.isprintable():
        raise NotAllowed("a string without control characters")
    return value or None


def socket_path(value: object) -> str | None:
    """Read the path of a unix socket: at most 108 bytes on Linux, with the terminating NUL (``unix(7)``)."""
    path = string(value)
    if path and len(path.encode()) > 107:
        raise NotAllowed("a path of at most 107 bytes")
    return path


def username(value: object) -> str | None:
    """Read a username; HTTP's Basic scheme (RFC 7617) does not allow a colon in it."""
    name = string(value)
    if name and ":" in name:
        raise NotAllowed("a username without a colon")
    return name


def token(value: object) -> str | None:
    """Read a token; it is put into an ``Authorization`` header unchanged."""
    secret = string(value)
    if secret and not secret.isascii():
        raise NotAllowed("a string of printable ASCII")
    return secret


def boolean(value: object) -> bool:
    """Read a boolean; 0 and 1 are not booleans."""
    if not isinstance(value, bool):
        raise NotAllowed("true or false")
    return value


def integer(lowest: int, highest: int = 2**31 - 1, *, zero_is_default: bool = False) -> Callable[[object], int | None]:
    """Return a reader of integers within bounds; a boolean is not an integer."""

    def read(value: object) -> int | None:
        if type(value) is int and zero_is_default and value == 0:
            return None
        if type(value) is not int or not lowest <= value <= highest:
            raise NotAllowed(f"an integer from {lowest} to {highest}{', or 0 for the default' * zero_is_default}")
        return value

    return read


def scaled(read: Callable[[object], int | None], factor: int, divisor: int = 1) -> Callable[[object], float | None]:
    """Return a reader that converts to our unit: multiply by ``factor``, divide by ``divisor``."""

    def convert(value: object) -> float | None:
        number = read(value)
        if number is None:
            return None
        return number * factor if divisor == 1 else number * factor / divisor

    return convert


def duration(value: object) -> float | None:
    """Read a duration above 0, in seconds."""
    if value == "":
        return None
    try:
        seconds = parse_duration(value) if isinstance(value, str) else 0.0
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise NotAllowed('a duration above 0 such as "500ms", "10s" or "1m30s"')
    return seconds


def word(*allowed: str) -> Callable[[object], str | None]:
    """Return a reader of one of two or more words, in upper or lower case."""

    def read(value: object) -> str | None:
        chosen = value.lower() if isinstance(value, str) else value
        if chosen == "":
            return None
        if chosen not in allowed:
            *others, last = (f'"{each}"' for each in allowed)
            raise NotAllowed(f"{', '.join(others)} or {last}")
        return str(chosen)

    return read


def precision(value: object) -> str | None:
    """Read a precision of InfluxDB 1.x's write API, where ``n`` and an empty string stand for ``ns``."""
    if value not in ("", "n", "ns", "u", "ms", "s", "m", "h"):
        raise NotAllowed('"n", "ns", "u", "ms", "s", "m" or "h"')
    return None if value in ("", "n") else str(value)


def expression(value: object) -> str | None:
    """Read a regular expression in the syntax of RE2, which is Go's; return its text."""
    if value == "":
        return None
    allowed = "a regular expression in RE2 syntax"
    if not isinstance(value, str):
        raise NotAllowed(allowed)
    try:
        compile_expression(value)
    except ExpressionError as error:
        raise NotAllowed(allowed, shortened(str(error), 120)) from None
    return value


def names(value: object) -> tuple[str, ...]:
    """Read a list of names."""
    if not isinstance(value, list) or not value or not all(isinstance(each, str) and each for each in value):
        raise NotAllowed("an array of names, at least one")
    return tuple(value)


def gzip(value: object) -> bool | None:
    """Read whether bodies are compressed on their way to a backend; None is as they came."""
    if value in ("", "as-received"):
        return None
    if not isinstance(value, bool):
        raise NotAllowed('"as-received", true or false')
    return value


def headers(value: object) -> tuple[tuple[str, str], ...]:
    """Read a table of HTTP headers; those that frame a message, or describe its body, are not for it."""
    allowed = 'a table of HTTP headers, such as { X-Tenant = "a" }, with values of printable ASCII'
    if not isinstance(value, dict):
        raise NotAllowed(allowed)
    for name, content in value.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise NotAllowed(allowed, "a name that is none of HTTP's")
        if name.lower() in _FRAMING:
            raise NotAllowed(allowed, f"{name}, which is the relay's to set")
        if not isinstance(content, str) or not re.fullmatch(r"(?:[!-~](?:[ -~]*[!-~])?)?", content):
            raise NotAllowed(allowed, f"the value of {name}")
    if len({name.lower() for name in value}) < len(value):
        raise NotAllowed(allowed, "a name that is there twice")
    return tuple((name, str(content)) for name, content in value.items())


def buckets(value: object) -> tuple[tuple[str, str], ...]:
    """Read a table of names for databases, each with its retention policy if it has one."""
    allowed = 'a table such as { "telegraf/autogen" = "telegraf" }, from "DATABASE" or "DATABASE/POLICY" to a name'
    if not isinstance(value, dict):
        raise NotAllowed(allowed)
    for place, name in value.items():
        if not place or place.startswith("/") or place.endswith("/") or not place.isprintable():
            raise NotAllowed(allowed, f"the key {shown(place)}")
        if not isinstance(name, str) or not name or not name.isprintable():
            raise NotAllowed(allowed, f"the name for {shown(place)}")
    return tuple((place, str(name)) for place, name in value.items())


def origins(value: object) -> tuple[str, ...]:
    """Read the origins of web pages (RFC 6454), which compare in lower case."""
    if not isinstance(value, list) or not all(isinstance(each, str) and _ORIGIN.fullmatch(each) for each in value):
        raise NotAllowed('an array of origins, such as "https://grafana.example.org", or ["*"] for all')
    return tuple(each.lower() for each in value)


def table(value: object) -> dict[str, Any]:
    """Read a table; its values are not read."""
    if not isinstance(value, dict):
        raise NotAllowed("a table")
    return value


def tables(value: object) -> list[dict[str, Any]]:
    """Read an array of tables; their values are not read."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise NotAllowed("an array of tables, each with a header in [[ ]]")
    return value


def rules(value: object) -> tuple[dict[str, Any], ...]:
    """Read an array of rules for answers; :mod:`influxrelay.config.answers` reads each."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise NotAllowed('an array of tables such as { status = 404, text = "nginx", means = "retry" }')
    return tuple(value)


_FRAMING = {
    *("connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    *("content-encoding", "content-length", "content-type"),
}
_ORIGIN = re.compile(r"\*|null|[A-Za-z][A-Za-z0-9+.-]*://[^\s/@]+")

# Files


def from_file(read: Callable[[object], str | None]) -> Callable[[object], str | None]:
    """Return a reader of a file that holds a secret, which ``read`` reads; one newline at its end is removed."""

    def content(value: object) -> str | None:
        path = string(value)
        if path is None:
            return None
        text = re.sub(r"\r?\n\Z", "", _content(path))
        try:
            secret = read(text)
        except NotAllowed as error:
            raise NotAllowed(f"a file that holds {error.allowed}", "wrong content") from None
        if secret is None:
            raise NotAllowed("a file that holds a secret", "it is empty")
        return secret

    return content


def path_of_secret(value: object) -> str | None:
    """Read the path of a file that holds a secret, which is read when it is used."""
    path = string(value)
    if path and not _content(path).strip():
        raise NotAllowed("a file that holds a secret", "it is empty")
    return path


def certificates(value: object) -> str | None:
    """Read the path of a PEM file with certificates; whether OpenSSL can read them shows when they are used."""
    path = string(value)
    if path and not re.search(rb"^-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----", _read(path), re.MULTILINE):
        raise NotAllowed("a PEM file with a certificate", "it has no certificate")
    return path


def certificate_and_key(value: object) -> str | None:
    """Read the path of a PEM file with a certificate and its key."""
    path = certificates(value)
    key = rb"^-----BEGIN (?!ENCRYPTED)[A-Z ]*PRIVATE KEY-----(?!\s+Proc-Type: 4,ENCRYPTED)"
    if path and not re.search(key, _read(path), re.MULTILINE):
        raise NotAllowed("a PEM file with a certificate and an unencrypted key", "it has no such key")
    return path


def _content(path: str) -> str:
    try:
        return _read(path).decode()
    except UnicodeDecodeError:
        raise NotAllowed("a file in UTF-8", "it is not UTF-8") from None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise NotAllowed("a readable file", f"cannot read it: {error.strerror}") from None


# Addresses


def destination_address(value: object) -> tuple[str, int]:
    """Read an address to send datagrams to; no host means this one, as in Go's ``net.ResolveUDPAddr``."""
    allowed = '"host:port" or "[IPv6]:port" with a port from 1 to 65535, or an http:// or https:// URL'
    host, port = _host_and_port(value, 1, allowed)
    if host and not is_host(host) and not is_ip(host, 6):
        raise NotAllowed(allowed)
    return host or LOOPBACK, port


def bind_address(value: object) -> tuple[str, int]:
    """Read an address to listen on: an IP address or nothing, and a port; port 0 is any free one."""
    allowed = '"ADDRESS:PORT", ":PORT" or "[IPv6]:PORT" with an IP address and a port from 0 to 65535'
    host, port = _host_and_port(value, 0, allowed)
    if host == "localhost":
        host = LOOPBACK
    if host and not is_ip(host, 4) and not is_ip(host, 6):
        raise NotAllowed(allowed)
    return host, port


def bind_address_or_endpoint(value: object) -> str | tuple[str, int]:
    """Read an address to listen on, or one of Twisted's endpoint strings, which is returned unchanged."""
    if isinstance(value, str) and value.isprintable() and re.match(r"(?:tcp6?|ssl|unix|systemd):(?!//).", value):
        return value
    try:
        return bind_address(value)
    except NotAllowed as error:
        raise NotAllowed(f'{error.allowed}, or a Twisted endpoint such as "unix:/run/relay.sock"') from None


def _host_and_port(value: object, lowest: int, allowed: str) -> tuple[str, int]:
    match = isinstance(value, str) and re.fullmatch(r"(?:\[([^\]]*)\]|([^:\[\]]*)):([0-9]{1,5})", value)
    if not match or not lowest <= int(match[3]) <= 65535:
        raise NotAllowed(allowed)
    if match[1] is None:
        return match[2], int(match[3])
    if not is_ip(match[1], 6):
        raise NotAllowed(allowed)
    return str(ipaddress.ip_address(match[1])), int(match[3])


def is_ip(text: str, version: int) -> bool:
    """Return whether a text is an IP address of this version."""
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def is_host(text: str) -> bool:
    """Is a text a host name or an IPv4 address? Digits and dots alone are not a name.

    A name may be anything else that a resolver may know: ``my_influxdb_1`` and ``db--01`` included.
    """
    name = re.fullmatch(r"[A-Za-z0-9._-]+", text) and not re.fullmatch(r"[0-9.]+", text)
    return bool(name) or is_ip(text, 4)
