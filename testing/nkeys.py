"""Keys and tokens of NATS, made for a test: an operator, an account, and a user with credentials."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

OPERATOR, ACCOUNT, USER = 14 << 3, 0, 20 << 3  # the first bytes of public keys: O, A and U
_SEED = 18 << 3
_ACCOUNT = {"type": "account", "version": 2}
_UNLIMITED = dict.fromkeys(("subs", "data", "payload"), -1)


class NKey:
    """A key pair.

    :param kind: the first byte of its public key.
    """

    def __init__(self, kind: int) -> None:
        self._kind = kind
        self._raw = os.urandom(32)
        self._key = Ed25519PrivateKey.from_private_bytes(self._raw)

    @property
    def public(self) -> str:
        """The public key as NATS writes it."""
        return _encoded(bytes([self._kind]) + self._key.public_key().public_bytes_raw())

    @property
    def seed(self) -> str:
        """The private key as NATS writes it."""
        return _encoded(bytes([_SEED | self._kind >> 5, (self._kind & 31) << 3]) + self._raw)

    def issue(self, subject: NKey, name: str, claims: dict[str, Any]) -> str:
        """Return a token for another key."""
        body = {"iat": int(time.time()), "iss": self.public, "name": name, "sub": subject.public, "nats": claims}
        digest = hashlib.sha512(json.dumps(body).encode()).digest()[:32]
        whole = {"jti": base64.b32encode(digest).decode().rstrip("="), **body}
        text = ".".join(_url(json.dumps(each).encode()) for each in ({"typ": "JWT", "alg": "ed25519-nkey"}, whole))
        return f"{text}.{_url(self._key.sign(text.encode()))}"


class Operator:
    """An operator who has one account with one user.

    :ivar settings: for a server.
    :ivar credentials: the user's file.
    """

    def __init__(self) -> None:
        operator, system, account, user = NKey(OPERATOR), NKey(ACCOUNT), NKey(ACCOUNT), NKey(USER)
        storage = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
        limits = {**_UNLIMITED, **storage, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
        own = operator.issue(operator, "operator", {"type": "operator", "version": 2})
        of_account = operator.issue(account, "relays", {"limits": limits, **_ACCOUNT})
        of_system = operator.issue(system, "system", {"limits": {**limits, **dict.fromkeys(storage, 0)}, **_ACCOUNT})
        of_user = account.issue(user, "relay", {"pub": {}, "sub": {}, **_UNLIMITED, "type": "user", "version": 2})
        preload = f"{account.public}: {of_account}, {system.public}: {of_system}"
        self.settings = (
            f"operator: {own}\nsystem_account: {system.public}\nresolver: MEMORY\nresolver_preload: {{ {preload} }}"
        )
        self.credentials = (
            f"-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )


def _encoded(raw: bytes) -> str:
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")


def _url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
