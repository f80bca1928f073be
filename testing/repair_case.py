"""Runs ``influxrelay repair`` beside a relay in front of two real InfluxDB servers."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from influxrelay.config.loader import load
from influxrelay.service.relay_service import RelayService
from testing.scripted import reactor
from testing.verify_case import VerifyCase


class RepairCase(VerifyCase):
    """Runs a relay in this process."""

    def directory(self) -> Path:
        """Return a directory whose path leaves room for the name of a socket."""
        path = Path(tempfile.mkdtemp(prefix="repair-"))
        self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        return path

    def start_relay(self, filters: str = "", outputs: tuple[str, ...] = ()) -> RelayService:
        """Start a relay with a journal, ``self.service``; its configuration is ``self.config``.

        :param outputs: beside both servers.
        """
        journal = f'journal = "{self.directory()}"'
        self.config = self.configuration(*outputs, listener=journal, top='shutdown-timeout = "1s"')
        Path(self.config).write_text(Path(self.config).read_text() + filters)
        return self.start_again()

    def start_again(self) -> RelayService:
        """Start a relay by the same configuration."""
        self.service = service = RelayService(load(self.config), reactor)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(lambda: Deferred.fromCoroutine(self._end(service)))
        return service

    async def repair(self, *arguments: str, backend: str = "b", code: int = 0) -> dict[str, Any]:
        """Repair a backend in the test's database; return what the command has said in JSON."""
        words = ("repair", backend, "--json", "--database", self.db)
        found, out, err = await self.run_command(*arguments, config=self.config, command=words)
        self.assertEqual(found, code, out + err)
        answer: dict[str, Any] = json.loads(out)
        self.assertEqual(answer["complete"], code == 0)
        answer["stderr"] = err
        return answer

    async def drop_other_databases(self) -> None:
        """Leave nothing on the servers but this test's database."""
        for server in self.servers:
            for (name,) in await deferToThread(server.rows, "SHOW DATABASES", ""):
                if name not in {"_internal", "udp", self.db}:
                    await deferToThread(server.query, f'DROP DATABASE "{name}"')

    async def refused(self, *arguments: str, backend: str = "b") -> str:
        """Return why the command ends with 2."""
        code, out, err = await self.run_command(
            *arguments, config=self.config, command=("repair", backend, "--database", self.db)
        )
        self.assertEqual((code, out, len(err.splitlines())), (2, "", 1), err)
        return err

    async def assert_equal(self) -> None:
        """Check that the servers are equal."""
        code, out, err = await self.run_command(config=self.config)
        self.assertEqual(code, 0, out + err)
