"""TLS towards the backends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from OpenSSL.crypto import X509
from OpenSSL.crypto import Error as CryptoError
from OpenSSL.SSL import VERIFY_PEER, Connection, Context
from OpenSSL.SSL import Error as OpenSSLError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from influxrelay.core.errors import ConfigError
from influxrelay.core.resolver import is_address

T = TypeVar("T")


@implementer(IOpenSSLClientConnectionCreator)
class _ConnectionCreator:
    """Makes the TLS connections to one host.

    Twisted's own, of ``optionsForClientTLS``, refuses names that IDNA 2008 has no place for.
    """

    def __init__(self, host: str, context: Context, *, verify: bool) -> None:
        self._name = host.rstrip(".")  # neither SNI (RFC 6066, 3) nor certificates have the root's dot
        self._identity = IPAddress_ID(host.partition("%")[0]) if is_address(host) else DNS_ID(self._name)
        self._context = context
        self._verify = verify

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> Connection:  # noqa: N803 (Twisted's)
        connection = Connection(self._context, None)
        if isinstance(self._identity, DNS_ID):
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        if self._verify:

            def check(_connection: Connection, certificate: X509, _error: int, depth: int, verified: int) -> bool:
                return bool(verified) and (depth > 0 or self._check(tlsProtocol, certificate))

            connection.set_verify(VERIFY_PEER, check)
        return connection

    def _check(self, protocol: TLSMemoryBIOProtocol, certificate: X509) -> bool:
        """Compare the server's certificate, which a trusted authority has signed, with the name that we know it by."""
        try:
            verify_service_identity(extract_patterns(certificate), [self._identity], [])
        except Exception:  # noqa: BLE001 (OpenSSL, which calls this, would print it and go on)
            protocol.failVerification(Failure())
            return False
        return True


class BackendPolicy:
    """How a backend's certificate is checked, and which one we show.

    Two of them are equal if they say the same, with the same content of these files.

    :param ca_file: PEM with the certificates to trust, instead of the system's.
    :param client_certificate: PEM with our certificate and its key.
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
        self._verify = verify
        shown = _parse(client_certificate, ours, PrivateCertificate.loadPEM) if client_certificate else None
        trusted = _parse(ca_file, authorities, _authorities) if ca_file else platformTrust()
        self._context: Context = CertificateOptions(
            privateKey=shown.privateKey.original if shown else None,
            certificate=shown.original if shown else None,
            trustRoot=trusted if verify else None,
        ).getContext()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BackendPolicy) and self._content == other._content

    def creator_for(self, host: str) -> IOpenSSLClientConnectionCreator:
        """Return what makes the connections to a host, an address or a name of any form."""
        return _ConnectionCreator(host, self._context, verify=self._verify)


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
