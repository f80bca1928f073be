"""TLS towards the backends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from OpenSSL.crypto import Error as CryptoError
from OpenSSL.SSL import Connection, Context
from OpenSSL.SSL import Error as OpenSSLError
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from influxrelay.core.errors import ConfigError

T = TypeVar("T")


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """Encrypts, and believes whoever answers (``skip-tls-verification``)."""

    def __init__(self, hostname: bytes, context: Context) -> None:
        self._hostname = hostname
        self._context = context

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> Connection:  # noqa: ARG002, N803 (Twisted's)
        connection = Connection(self._context, None)
        if not isIPAddress(self._hostname.decode("ascii")) and not isIPv6Address(self._hostname.decode("ascii")):
            connection.set_tlsext_host_name(self._hostname)  # RFC 6066, 3: no addresses
        return connection


@implementer(IPolicyForHTTPS)
class BackendPolicy:
    """How a backend's certificate is checked, and which one we show.

    :param ca_file: PEM with the certificates to trust, instead of the system's.
    :param client_certificate: PEM with our certificate and its key.
    Two of them are equal if they say the same, with the same content of these files.

    :raises ConfigError: a file is not what it should be.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        *,
        verify: bool = True,
        ca_file: str | None = None,
        client_certificate: str | None = None,
    ) -> None:
        ours = _read(client_certificate) if client_certificate else b""
        authorities = _read(ca_file) if ca_file else b""
        self._content = (verify, ours, authorities)
        self._ours = _parse(client_certificate, ours, PrivateCertificate.loadPEM) if client_certificate else None
        self._trust = _parse(ca_file, authorities, _authorities) if ca_file else None
        self._unverified: Context | None = None
        if not verify:
            shown = self._ours
            options = CertificateOptions(
                verify=False,
                privateKey=shown.privateKey.original if shown else None,
                certificate=shown.original if shown else None,
            )
            self._unverified = options.getContext()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BackendPolicy) and self._content == other._content

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:  # noqa: ARG002 (the interface's)
        """Return what makes the connections to this host."""
        if self._unverified is not None:
            return cast("IOpenSSLClientConnectionCreator", _Unverified(hostname, self._unverified))
        return optionsForClientTLS(hostname.decode("ascii"), trustRoot=self._trust, clientCertificate=self._ours)


def _authorities(pem: bytes) -> Any:
    end = b"-----END CERTIFICATE-----"
    blocks = [block + end for block in pem.split(end)[:-1]]
    if not blocks:
        raise ValueError("no certificate in it")
    return trustRootFromCertificates([Certificate.loadPEM(block) for block in blocks])


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _parse(path: str, content: bytes, parser: Callable[[bytes], T]) -> T:
    try:
        return parser(content)
    except (ValueError, OpenSSLError, CryptoError) as error:
        raise ConfigError(f"{path}: not a usable PEM file: {error}") from error
