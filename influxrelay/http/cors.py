"""Which web pages may read responses in a browser (CORS)."""

from __future__ import annotations

from collections.abc import Sequence

_HEADERS = (
    b"Access-Control-Allow-Methods: DELETE, GET, OPTIONS, POST, PUT\r\n"
    b"Access-Control-Allow-Headers: Accept, Accept-Encoding, Authorization, Content-Length, Content-Type, X-CSRF-Token,"
    b" X-HTTP-Method-Override\r\n"
    b"Access-Control-Expose-Headers: Date, X-InfluxDB-Version, X-InfluxDB-Build\r\n"
)


class CrossOriginPolicy:
    """Adds InfluxDB's headers to responses (``services/httpd/handler.go``, ``cors``).

    :param origins: in lower case; ``*`` stands for all, as InfluxDB allows.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._all = "*" in origins
        self._origins = {origin.encode() for origin in origins}

    def headers(self, origin: bytes) -> bytes:
        """Return the header lines of a response to a request with this ``Origin``; empty if it is not allowed."""
        if not origin or not (self._all or origin.lower() in self._origins):
            return b""
        return b"Access-Control-Allow-Origin: %b\r\nVary: Origin\r\n%b" % (origin, _HEADERS)
