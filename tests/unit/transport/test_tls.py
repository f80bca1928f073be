"""PEM files: what is read, what is refused, and how that is said."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import ConfigError
from influxrelay.transport.tls import ClientTLS, ServerTLS
from testing.certificates import Authority

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN PRIVATE KEY-----.*?-----END PRIVATE KEY-----\n", re.DOTALL)


class _Case(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a certificate, its key, and the one of its authority."""
        self.authority = Authority(self.mktemp())
        issued = Path(self.authority.issue("localhost")).read_bytes()
        self.key = _KEY.findall(issued)[0]
        self.certificate = _CERTIFICATE.findall(issued)[0]
        self.ca = Path(self.authority.ca_file()).read_bytes()

    def write(self, content: bytes) -> str:
        """Write a file, and return its path."""
        path = Path(self.mktemp())
        path.write_bytes(content)
        return str(path)

    def variants(self, pem: bytes) -> list[bytes]:
        """Return what OpenSSL takes for the same as a PEM file."""
        return [
            pem,
            pem.replace(b"\n", b"\r\n"),
            pem.replace(b"\n", b"  \t\n"),
            pem.replace(b"-----\n", b"-----   \n"),
            "# Schlüssel für Köln\n".encode("latin-1") + pem.replace(b"-----BEGIN", "größer: ü\n-----BEGIN".encode()),
            b"Bag Attributes\n    friendlyName: x\n" + pem + b"# the end\n",
            pem.rstrip(b"\n"),
        ]

    def served(self, tls: ServerTLS) -> list[str]:
        """Return the names on the certificates that a server shows."""
        ours = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        ours.check_hostname, ours.verify_mode = False, ssl.CERT_NONE
        ends = [ssl.MemoryBIO() for _ in range(2)]
        client = ours.wrap_bio(ends[0], ends[1])
        server = tls.context.wrap_bio(ends[1], ends[0], server_side=True)
        for end in (client, server, client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
        chain = client._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
        return [one.get_info()["subject"][0][0][1] for one in chain]


class ServerTests(_Case):
    """What a server shows."""

    def test_whatever_openssl_reads(self) -> None:
        """Line ends, blanks, comments and encodings make no difference: the certificate is served with its chain."""
        for content in self.variants(self.key + self.certificate + self.ca):
            self.assertEqual(
                self.served(ServerTLS(self.write(content))), ["localhost", "influxrelay test authority"], content
            )

    def test_any_order(self) -> None:
        """The certificate that the key belongs to is found wherever it stands, and is served first."""
        key, certificate, ca = self.key, self.certificate, self.ca
        for parts in ((certificate, key, ca), (ca, certificate, key), (key, ca, certificate), (ca, key, certificate)):
            self.assertEqual(
                self.served(ServerTLS(self.write(b"".join(parts)))), ["localhost", "influxrelay test authority"]
            )

    def test_three_files(self) -> None:
        """Certificate, key and chain may stand in files of their own."""
        files = [self.write(each) for each in (self.certificate, self.key, self.ca)]
        self.assertEqual(self.served(ServerTLS(*files)), ["localhost", "influxrelay test authority"])

    def test_refused(self) -> None:
        """What cannot be used is an error that names the file and says why, in one line; nobody is asked a password."""
        key = load_pem_private_key(self.key, None)
        encrypted = [
            key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret"))
            for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)
        ]
        other = _KEY.findall(Path(self.authority.issue("other")).read_bytes())[0]
        broken = b"-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n"
        for content, reason in (
            (b"", "no certificate in it"),
            (self.key, "no certificate in it"),
            (self.certificate, "no private key in it"),
            (self.certificate + encrypted[0], "its private key is encrypted"),
            (self.certificate + encrypted[1], "its private key is encrypted"),
            (self.certificate + other, "KEY VALUES MISMATCH"),
            (self.key + broken, "OpenSSL cannot read it"),
            (self.key + self.certificate + broken, "BAD BASE64 DECODE"),
        ):
            path = self.write(content)
            error = self.assertRaises(ConfigError, ServerTLS, path)
            self.assertEqual(str(error), f"{path}: not a usable PEM file: {reason}")
        error = self.assertRaises(ConfigError, ServerTLS, "/no/such/file.pem")
        self.assertEqual(str(error), "/no/such/file.pem: No such file or directory")


class ClientTests(_Case):
    """What a client trusts and shows."""

    def test_whatever_openssl_reads(self) -> None:
        """Every certificate of a ca-file is trusted, and a client's certificate is read, however they are written."""
        other = Path(Authority(self.mktemp(), "another").ca_file()).read_bytes()
        for content in self.variants(self.ca + other):
            tls = ClientTLS(ca_file=self.write(content))
            found: list[Any] = tls.context.get_ca_certs()
            names = [each["subject"][0][0][1] for each in found]
            self.assertEqual(sorted(names), ["another", "influxrelay test authority"], content)
        for content in self.variants(self.key + self.certificate):
            ClientTLS(client_certificate=self.write(content))

    def test_refused(self) -> None:
        """What cannot be used is an error that names the file and says why."""
        broken = b"-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n"
        for content, reason in (
            (b"", "no certificate in it"),
            (self.key, "no certificate in it"),
            (self.ca + broken, "OpenSSL cannot read it"),
        ):
            path = self.write(content)
            error = self.assertRaises(ConfigError, ClientTLS, ca_file=path)
            self.assertEqual(str(error), f"{path}: not a usable PEM file: {reason}")
        error = self.assertRaises(ConfigError, ClientTLS, client_certificate=self.write(self.certificate))
        self.assertIn("no private key in it", str(error))
