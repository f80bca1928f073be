"""TLS contexts from PEM files: whatever OpenSSL reads is read."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from influxrelay.core.errors import ConfigError

_CERTIFICATE = re.compile(
    rb"^-----BEGIN ((?:X509 |TRUSTED )?CERTIFICATE)-----.*?^-----END \1-----[^\n]*\n?", re.DOTALL | re.MULTILINE
)
_BEGIN = re.compile(rb"^-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----", re.MULTILINE)
_KEY = re.compile(rb"^-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----", re.MULTILINE)
_ENCRYPTED_KEY = re.compile(rb"^-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)


class ServerTLS:
    """What a server shows to its clients.

    Two of them are equal if their files have the same content.

    :param certificate: a PEM file with the certificate and those that vouch for it, in any order.
    :param key: a PEM file with the private key; the same file by default.
    :param chain: a PEM file with more certificates that vouch for the first one.
    :raises ConfigError: a file is not what it should be.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, certificate: str, key: str | None = None, chain: str | None = None) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.options |= ssl.OP_NO_RENEGOTIATION
        # Of a client that only sends nobody reads the tickets, and so its close would reset the connection.
        self.context.num_tickets = 0
        files = dict.fromkeys(path for path in (certificate, key, chain) if path is not None)
        self._content = _load_certificate(self.context, *files)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServerTLS) and self._content == other._content


class ClientTLS:
    """How a server's certificate is checked, and which one this client shows.

    Two of them are equal if they say the same, with the same content of their files.

    :param verify: whether to check that the server is who it should be.
    :param ca_file: a PEM file with the certificates to trust, instead of the system's.
    :param client_certificate: a PEM file with a certificate and its private key.
    :raises ConfigError: a file is not what it should be.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self, *, verify: bool = True, ca_file: str | None = None, client_certificate: str | None = None
    ) -> None:
        self._context = context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.hostname_checks_common_name = False
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        authorities = b""
        if ca_file is not None:
            authorities = _load_authorities(context, ca_file)
        self._trusts_system = verify and ca_file is None
        shown = _load_certificate(context, client_certificate) if client_certificate is not None else b""
        self._content = (verify, authorities, shown)

    @property
    def context(self) -> ssl.SSLContext:
        """What a connection needs; the system's authorities are read when it is first used, for that takes a while."""
        if self._trusts_system:
            self._trusts_system = False
            self._context.load_default_certs()
        return self._context

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClientTLS) and self._content == other._content


def _load_certificate(context: ssl.SSLContext, *paths: str) -> bytes:
    """Load a certificate, its private key and the certificates that vouch for it; return what was read."""
    content = b"\n".join(map(_read, paths))
    certificates = [found[0] for found in _CERTIFICATE.finditer(content)]

    def load(pem: bytes) -> None:
        with _as_file(pem) as path:
            context.load_cert_chain(path, password=lambda: "")  # without this, OpenSSL would ask at the terminal

    with _explained(", ".join(paths), content, needs_key=True):
        try:
            load(content)
        except ssl.SSLError as error:
            if error.reason != "KEY_VALUES_MISMATCH" or not _load_in_another_order(load, content, certificates):
                raise
    return content


def _load_in_another_order(load: Callable[[bytes], None], content: bytes, certificates: list[bytes]) -> bool:
    """Put that certificate first to which the private key belongs, as OpenSSL wants it; tell whether there is one."""
    others = _CERTIFICATE.sub(b"", content)
    for first in certificates[1:]:
        rest = [each for each in certificates if each is not first]
        try:
            load(b"\n".join([first, *rest, others]))
        except ssl.SSLError:
            continue
        return True
    return False


def _load_authorities(context: ssl.SSLContext, path: str) -> bytes:
    """Trust the certificates in a file, whether they belong to authorities or to servers; return what was read."""
    content = _read(path)
    with _explained(path, content, needs_key=False), _as_file(content) as name:
        context.load_verify_locations(name)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return content


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Give a name to content that is in memory only, for OpenSSL reads PEM from files."""
    fd = os.memfd_create("pem")
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(content)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


@contextmanager
def _explained(path: str, content: bytes, *, needs_key: bool) -> Iterator[None]:
    """Turn OpenSSL's error into one that says what is wrong with the file."""
    try:
        yield
    except ssl.SSLError as error:
        if not _BEGIN.search(content):
            reason = "no certificate in it"
        elif needs_key and _ENCRYPTED_KEY.search(content):
            reason = "its private key is encrypted"
        elif needs_key and not _KEY.search(content):
            reason = "no private key in it"
        else:
            reason = (error.reason or "OpenSSL cannot read it").replace("_", " ")
        raise ConfigError(f"{path}: not a usable PEM file: {reason}") from error
