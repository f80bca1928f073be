"""Certificates that change with a reload, and TLS that begins or ends."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate, optionsForClientTLS

from testing.certificates import Authority
from testing.reloading import ReloadCase, http, to
from testing.scripted import LOOPBACK, PING, request, together, until
from testing.servers import free_port


def asking(authority: Authority) -> CertificateOptions:
    """Return what makes a server ask its clients for a certificate of an authority."""
    server = PrivateCertificate.loadPEM(Path(authority.issue()).read_bytes())
    return CertificateOptions(
        privateKey=server.privateKey.original,
        certificate=server.original,
        trustRoot=Certificate.loadPEM(Path(authority.ca_file()).read_bytes()),
    )


class CertificateTests(ReloadCase):
    """TLS, of our own and of the backends."""

    def pem(self, authority: Authority) -> Path:
        """Return the one file in which certificates are replaced."""
        path = self.directory / "relay.pem"
        shutil.copy(authority.issue(), path)
        return path

    def trust(self, authority: Authority) -> Any:
        """Return what makes a client believe one authority only."""
        root = Certificate.loadPEM(Path(authority.ca_file()).read_bytes())
        return optionsForClientTLS(LOOPBACK, trustRoot=root)

    async def connects(self, authority: Authority) -> bool:
        """Tell whether a client that believes an authority gets an answer."""
        try:
            client = await self.client(self.listener, tls=self.trust(authority))
            found = await client.ask(PING)
        except AssertionError:
            return False
        return found.status == 204

    async def test_served(self) -> None:
        """New content of the same file is shown to who connects next; who is connected stays; TLS comes and goes."""
        one = self.backend()
        old, new = (Authority(str(self.directory / name), name) for name in ("old", "new"))
        path = self.pem(old)
        port = free_port()
        plain = http(to(one), bind=f"{LOOPBACK}:{port}")
        text = http(to(one), bind=f"{LOOPBACK}:{port}", listener=f'ssl-combined-pem = "{path}"')
        self.start(text)
        client = await self.client(self.listener, tls=self.trust(old))
        self.assertEqual((await client.ask(PING)).status, 204)
        self.assertEqual(await self.reload(text), [])
        before = self.listener._port
        self.pem(new)
        self.assertEqual(await self.reload(text), ["main: certificate"])
        self.assertEqual([await self.connects(each) for each in (old, new)], [False, True])
        self.assertEqual((await client.ask(request())).status, 204)
        path.write_text("-----BEGIN CERTIFICATE-----\nrubbish\n-----BEGIN PRIVATE KEY-----\n")
        self.assertIn(f"main: {path}: not a usable PEM file: ", await self.refused(text))
        self.assertTrue(await self.connects(new))
        self.assertEqual(await self.reload(plain), ["main: ssl-combined-pem"])
        self.assertEqual((await self.submit()).status, 204)
        self.pem(old)
        await self.reload(text)
        self.assertTrue(await self.connects(old))
        self.assertIs(self.listener._port, before)

    async def test_endpoint_string(self) -> None:
        """The files that an endpoint of Twisted's names are read again, too."""
        one = self.backend()
        old, new = (Authority(str(self.directory / name), name) for name in ("old", "new"))
        path = self.pem(old)
        endpoint = f"ssl:{free_port()}:interface={LOOPBACK}:privateKey={path}:certKey={path}"
        self.start(http(to(one), bind=endpoint))
        self.assertTrue(await self.connects(old))
        self.pem(new)
        await self.reload(http(to(one), bind=endpoint))
        self.assertEqual([await self.connects(each) for each in (old, new)], [False, True])

    async def test_under_load(self) -> None:
        """While the certificate is replaced again and again, every client that connects gets its answer."""
        one = self.backend()
        authority = Authority(str(self.directory / "authority"))
        path = self.pem(authority)
        text = http(to(one), listener=f'ssl-combined-pem = "{path}"')
        self.start(text)
        over = False
        counts = []

        async def connect_all_the_time() -> None:
            count = 0
            while not over:
                client = await self.client(self.listener, tls=self.trust(authority))
                self.assertEqual((await client.ask(request())).status, 204)
                client.vanish()
                count += 1
            counts.append(count)

        async def replace() -> None:
            nonlocal over
            try:
                for _ in range(10):
                    self.pem(authority)
                    self.assertEqual(await self.reload(text), ["main: certificate"])
                    seen = len(one.requests)
                    await until(lambda: len(one.requests) > seen + 4)
            finally:
                over = True

        await together(replace(), *(connect_all_the_time() for _ in range(3)))
        self.assertGreater(min(counts), 0)

    async def test_of_backends(self) -> None:
        """Which certificates of backends are believed, and which is shown to them, holds for the next connection."""
        right, wrong = (Authority(str(self.directory / name), name) for name in ("right", "wrong"))
        one = self.backend(tls=asking(right))
        believed, shown = self.directory / "believed.pem", self.directory / "shown.pem"
        shutil.copy(wrong.ca_file(), believed)
        shutil.copy(wrong.issue(), shown)
        both = f'ca-file = "{believed}"\nclient-certificate = "{shown}"'
        self.start(http(to(one, more=both)))
        self.assertEqual((await self.submit()).status, 503)
        shutil.copy(right.ca_file(), believed)
        shutil.copy(right.issue(), shown)
        self.assertEqual((await self.submit()).status, 503)
        sender = self.sender
        self.assertEqual(await self.reload(http(to(one, more=both))), ["main: output one: content of its PEM files"])
        self.assertEqual((await self.submit()).status, 204)
        self.assertEqual(await self.reload(http(to(one, more=both))), [])
        only = f'ca-file = "{believed}"'
        self.assertEqual(await self.reload(http(to(one, more=only))), ["main: output one: client-certificate"])
        self.assertEqual((await self.submit()).status, 503)
        unseen = f'skip-tls-verification = true\nclient-certificate = "{shown}"'
        await self.reload(http(to(one, more=unseen)))
        self.assertEqual((await self.submit()).status, 204)
        shown.write_text("-----BEGIN CERTIFICATE-----\nx\n-----BEGIN PRIVATE KEY-----\n")
        self.assertIn("not a usable PEM file", await self.refused(http(to(one, more=unseen))))
        self.assertEqual((await self.submit()).status, 204)
        self.assertIs(self.sender, sender)
