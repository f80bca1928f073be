"""A relay with a listener for operators, whose health is asked for."""

from __future__ import annotations

import json
from typing import Any

from influxrelay.core.errors import BackendFailure
from influxrelay.listeners.port_service import AdminService
from influxrelay.service.relay_service import RelayService
from testing.admin import OperatedCase
from testing.scripted import LOOPBACK, Answer, answer, request

ADMIN = f'[admin]\nbind-addr = "{LOOPBACK}:0"\n'
UDP = f"""[[udp]]
name = "udp"
bind-addr = "{LOOPBACK}:0"
output = [{{ name = "one", location = "{LOOPBACK}:9" }}]
"""
DOWN = BackendFailure("timeout", "no answer")
NOT_YET = answer(404, b'{"error":"database not found: \\"db\\""}')


class HealthCase(OperatedCase):
    """Asks the listeners, and the admin listener."""

    pings = True

    def admin(self, service: RelayService) -> Any:
        """Return the admin listener."""
        assert isinstance(service.admin, AdminService)
        return service.admin

    async def get(self, where: Any, path: bytes, *headers: bytes, method: bytes = b"GET") -> Answer:
        """Send a request without a body, and return the answer."""
        client = await self.client(where)
        client.send(request(path, b"", *headers, method=method, length=-1))
        found = await client.answer(to_head=method == b"HEAD")
        client.vanish()
        return found

    async def told(self, where: Any, path: bytes) -> tuple[int, dict[str, Any]]:
        """Return the status and the JSON of an answer."""
        found = await self.get(where, path)
        return found.status, json.loads(found.body)
