"""Responses to requests that the relay refuses itself."""

from __future__ import annotations

import math

from influxrelay.core.replies import json_error
from influxrelay.core.write import Reply

INCOMPLETE = json_error(400, "the request ends before its body is complete")
TOO_LARGE = json_error(413, "Request Entity Too Large")
TOO_MUCH = json_error(503, "too many bytes in flight", (b"Retry-After", b"1"))


def method_not_allowed(allowed: bytes) -> Reply:
    """Return the response to a method that a resource does not have.

    :param allowed: those that it has, as the header ``Allow`` lists them.
    """
    return json_error(405, "method not allowed", (b"Allow", allowed))


def rate_limited(seconds: float) -> Reply:
    """Return the response to a request over the rate limit, which may come again in so many seconds."""
    return json_error(429, "rate limit exceeded", (b"Retry-After", b"%d" % math.ceil(seconds)))
