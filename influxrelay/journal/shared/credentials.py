"""What a relay shows to NATS: a user's credentials, an NKey or a password, from one file."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

import attrs

from influxrelay.journal.shared.interface import Unfit

_SEED = re.compile(r"\bSU[A-Z2-7]{56}\b")
_JWT = re.compile(r"-----BEGIN NATS USER JWT-----\s*(\S+)\s*-+END NATS USER JWT-+")
_USER = 20 << 3  # the first byte of a user's public key, which makes it begin with U


@attrs.frozen
class Credentials:
    """What a connection shows.

    :ivar seed: of the user's NKey, 32 bytes, with which the server's nonce is signed; empty for none.
    :ivar jwt: that an operator has issued for this key; empty if the server knows the key itself.
    :ivar user: and ``password``: empty for none.
    """

    seed: bytes = attrs.field(default=b"", repr=False)
    jwt: str = attrs.field(default="", repr=False)
    user: str = ""
    password: str = attrs.field(default="", repr=False)

    @property
    def public_key(self) -> str:
        """The public NKey; needs a seed."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 (if it is used)

        body = bytes([_USER]) + Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()
        return base64.b32encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "little")).decode().rstrip("=")

    def sign(self, nonce: str) -> bytes:
        """Return the signature of a nonce as the protocol has it; needs a seed."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 (if it is used)

        return base64.b64encode(Ed25519PrivateKey.from_private_bytes(self.seed).sign(nonce.encode()))


def read_credentials(path: str | None) -> Credentials:
    """Read a file of NATS credentials, or with the seed of a user's NKey, or with ``USER:PASSWORD``.

    :raises Unfit: it cannot be read, or has none of them.
    """
    if path is None:
        return Credentials()
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise Unfit(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    jwt = _JWT.search(text)
    if seed := _SEED.search(text):
        return Credentials(_decoded(path, seed[0]), jwt[1] if jwt else "")
    user, colon, password = text.partition(":")
    if not colon or not user or not text.isprintable():
        raise Unfit(f"{path}: neither NATS credentials nor the seed of a user's NKey nor USER:PASSWORD")
    return Credentials(user=user, password=password)


def _decoded(path: str, seed: str) -> bytes:
    raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    if binascii.crc_hqx(raw[:-2], 0) != int.from_bytes(raw[-2:], "little"):
        raise Unfit(f"{path}: the seed of the NKey has a wrong checksum")
    return raw[2:-2]
