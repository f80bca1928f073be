"""One relay with one backend and one client, for tests of HTTP."""

from __future__ import annotations

from typing import Any

from testing.scripted import Answer, RelayTestCase


class HTTPTestCase(RelayTestCase):
    """One relay with one backend, and one client."""

    settings: dict[str, Any] = {}  # noqa: RUF012 (replaced, never changed)

    async def begin(self, *script: Any, **settings: Any) -> None:
        """Start all three."""
        self.server = self.backend(*script)
        self.service = self.relay(self.server, **{**self.settings, **settings})
        self.user = await self.client(self.service)

    async def asked(self, *pieces: bytes) -> Answer:
        """Return the answer to a request on the one connection."""
        return await self.user.ask(*pieces)

    def assert_not_asked(self) -> None:
        """Check that the backend has got nothing."""
        self.assertEqual(self.server.requests, [])
        self.assertEqual(self.service.senders[0].writes, 0)
