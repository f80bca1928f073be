"""Relays whose metrics are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.task import deferLater

from influxrelay.listeners.http import HTTPService
from influxrelay.listeners.udp import UDPService
from influxrelay.operations.metric_families import FAMILIES
from influxrelay.operations.metrics import Metrics
from testing.scripted import RelayTestCase, reactor


class MetricsCase(RelayTestCase):
    """Relays, and what is told of them."""

    def watch(self, *listeners: HTTPService | UDPService) -> None:
        """Tell of these listeners."""
        self.metrics = Metrics(lambda: listeners, reactor, path="relay.toml")
        self.addCleanup(self.metrics.stopService)
        self.metrics.startService()

    async def figures(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the samples of this name: the labels' values, in the order of their declaration, and the figure."""
        families = await self.metrics.collect()
        order = next((each.labels for each in FAMILIES if name.startswith(each.name)), ())
        return {
            tuple(sample.labels[label] for label in order): sample.value
            for family in families
            for sample in family.samples
            if sample.name == name
        }

    async def shown(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the samples that are not 0."""
        return {labels: value for labels, value in (await self.figures(name)).items() if value}

    async def assert_figure(self, name: str, expected: Mapping[Any, float]) -> None:
        """Check all samples of this name that are not 0."""
        self.assertEqual(await self.shown(name), expected, name)

    async def wait_for(self, name: str, expected: Mapping[Any, float]) -> None:
        """Wait until all samples of this name that are not 0 are these."""
        for _ in range(600):
            if await self.shown(name) == expected:
                return
            await deferLater(reactor, 0.05)
        await self.assert_figure(name, expected)
