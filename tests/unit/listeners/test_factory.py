"""What follows from the settings of an output."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.config.settings import HTTPOutputConfig
from influxrelay.delivery.settings import SenderSettings
from influxrelay.listeners.factory import kinds_taken


class OutputTests(SynchronousTestCase):
    """What each kind of backend takes."""

    def test_repairable(self) -> None:
        """The advice to repair a backend is given for all but those of InfluxDB 3.x."""
        for kind, api, expected in (
            ("influxdb", "v1", True),
            ("influxdb", "v2", True),
            ("influxdb", "v3", False),
            ("prometheus", "v1", True),
        ):
            output = HTTPOutputConfig("o", "", "", "", type=kind, api=api)
            self.assertIs(SenderSettings("o", kinds=kinds_taken(output)).is_repairable, expected, (kind, api))
