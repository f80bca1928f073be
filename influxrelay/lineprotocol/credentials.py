"""The user that a write names, in whichever of the ways that the generations of InfluxDB have for it."""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error

_TOKEN_SCHEMES = (b"token", b"bearer")


def basic(username: bytes, password: bytes) -> bytes:
    """Return the ``Authorization`` header of HTTP's Basic scheme (RFC 7617)."""
    return b"Basic " + b64encode(username + b":" + password)


def user_of(authorization: bytes, username: bytes = b"", password: bytes = b"") -> tuple[bytes, bytes] | None:
    """Return the name and the password of the user that a write names; None for a token or for nobody.

    As in 1.x the query string's ``u`` and ``p`` come first if both are given; ``Token USER:PASSWORD`` is what 1.8 takes
    from clients of 2.x (``services/httpd/handler.go``, ``parseCredentials``).
    """
    if username and password:
        return username, password
    scheme, _, secret = authorization.partition(b" ")
    secret = secret.strip()
    if scheme.lower() == b"basic":
        try:
            secret = b64decode(secret, validate=True)
        except Error:
            return None
    elif scheme.lower() not in _TOKEN_SCHEMES:
        return None
    name, colon, word = secret.partition(b":")
    return (name, word) if colon else None


def canonical(authorization: bytes, username: bytes = b"", password: bytes = b"") -> tuple[bytes, bytes, bytes]:
    """Return the credentials of a destination: the same for one user, whichever way a write names it."""
    user = user_of(authorization, username, password)
    return (basic(*user), b"", b"") if user is not None else (authorization, username, password)
