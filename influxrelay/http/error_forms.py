"""Errors in the form of the API that the client speaks, wherever they come from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from influxrelay.core.replies import json_error
from influxrelay.core.write import Reply

ErrorForm = Callable[[Reply], Reply]
"""Returns an error in the form of an API, with its status unchanged."""

_MAX_TEXT = 2000  # characters of a text that is not InfluxDB's, such as a proxy's page
_KEPT = (b"Allow", b"Retry-After")
_CODES = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    405: "method not allowed",
    409: "conflict",
    413: "request too large",
    415: "unsupported media type",
    422: "unprocessable entity",
    429: "too many requests",
    503: "unavailable",
}
_UNPARSABLE = re.compile(r"unable to parse '(.*?)': ([^\n]*)", re.DOTALL)
_PARTIAL = "partial write of line protocol occurred"


def in_v1(reply: Reply) -> Reply:
    """Return an error as 1.x writes it; what is not an error of 2.x or 3.x stays as it is."""
    found = _parse(reply)
    if _is_text(found, "message") and "code" in found:
        return json_error(reply.status, found["message"], *_kept(reply))
    if _is_text(found, "error") and found.get("data"):
        return json_error(reply.status, _with_lines(found), *_kept(reply))
    return reply


def in_v2(reply: Reply) -> Reply:
    """Return an error as 2.x writes it (``kit/transport/http/error_handler.go``)."""
    found = _parse(reply)
    if _is_text(found, "message") and "code" in found:
        return reply
    code = _CODES.get(reply.status, "internal error" if reply.status >= 500 else "invalid")
    shown = {"code": code, "message": _message(reply, found)}
    return _reply(reply, shown, (b"X-Platform-Error-Code", code.encode()))


def in_v3(reply: Reply) -> Reply:
    """Return an error as 3.x writes it, with ``data`` where lines are named (``influxdb3_server``, ``http.rs``)."""
    found = _parse(reply)
    if _is_text(found, "error") and "data" in found:
        return reply
    message = _message(reply, found)
    lines = [
        {"original_line": line, "line_number": None, "error_message": reason}
        for line, reason in _UNPARSABLE.findall(message)
    ]
    if reply.status in (400, 422) and (lines or message.startswith("partial write")):
        data = lines or [{"original_line": "", "line_number": None, "error_message": message}]
        return _reply(reply, {"error": _PARTIAL, "data": data})
    return _reply(reply, {"error": message, "data": None})


def _parse(reply: Reply) -> dict[str, Any]:
    try:
        found = json.loads(reply.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_text(found: dict[str, Any], key: str) -> bool:
    return isinstance(found.get(key), str)


def _message(reply: Reply, found: dict[str, Any]) -> str:
    """Return what an error says, without the form in which it says that."""
    if _is_text(found, "message"):
        return str(found["message"])
    if _is_text(found, "error"):
        return _with_lines(found)
    text = dict(reply.headers).get(b"X-Influxdb-Error", b"") or reply.body.strip()
    shown = text.decode("utf-8", "replace")[:_MAX_TEXT]
    return shown or next((each.phrase for each in HTTPStatus if each == reply.status), str(reply.status))


def _with_lines(found: dict[str, Any]) -> str:
    """Return the text of an error of 3.x, with the lines that it names."""
    data = found.get("data")
    named = [each for each in (data if isinstance(data, list) else [data]) if isinstance(each, dict)]
    lines = [
        f"line {each.get('line_number')}: {each.get('error_message')} ({each.get('original_line')})" for each in named
    ]
    return "; ".join([str(found["error"]), *lines])


def _kept(reply: Reply) -> list[tuple[bytes, bytes]]:
    return [header for header in reply.headers if header[0] in _KEPT]


def _reply(reply: Reply, shown: dict[str, Any], *headers: tuple[bytes, bytes]) -> Reply:
    body = json.dumps(shown, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace")
    return Reply(reply.status, ((b"Content-Type", b"application/json"), *headers, *_kept(reply)), body + b"\n")
