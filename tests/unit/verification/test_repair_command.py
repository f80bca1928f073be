"""What ``influxrelay repair`` must know of the relay before it copies anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.config.loader import load
from influxrelay.operations.views import Refused, Request
from influxrelay.verification.command import Wanted
from influxrelay.verification.order import Order
from influxrelay.verification.relay_writer import Relay
from influxrelay.verification.repair_command import repair

_CONFIG = """
[[http]]
name = "main"
bind-addr = "127.0.0.1:9096"
output = [
    { name = "a", location = "http://127.0.0.1:1/write" },
    { name = "b", location = "http://127.0.0.1:1/write" },
    { name = "c", location = "http://127.0.0.1:1/write" },
]
"""


def row(name: str, **fields: Any) -> dict[str, Any]:
    """Return what the relay says of a backend with an empty queue."""
    usual = {"state": "up", "journal_trouble": "", "writes": 0, "drops": []}
    return {"listener": "main", "backend": name, **usual, **fields}


class UnknownTests(SynchronousTestCase):
    """A relay that cannot tell something: nothing is copied."""

    def refused(self, *rows: Mapping[str, Any], missed: str = "", **order: Any) -> str:
        """Return why a repair of the backend b is refused.

        :param missed: why the relay does not tell what backends have missed.
        """
        path = Path(self.mktemp())
        path.write_text(_CONFIG)

        def ask(request: Request) -> dict[str, Any]:
            if request.command == "queues":
                return {"relay": "running", "queues": rows}
            self.assertEqual(request.command, "repair missed")
            raise Refused(missed)

        relay = Relay(ask, ask, sleep=lambda _: None)
        wanted, what = Wanted(listener="main"), Order(backend="b", **order)
        return str(self.assertRaises(Refused, repair, load(str(path)), wanted, what, relay, lambda *_: None))

    def test_missed(self) -> None:
        """It is not known which DELETE the others have missed: it would bring back what that removed."""
        said = self.refused(row("a"), row("b"), row("c"), missed="the disk is gone")
        self.assertEqual(said, "after 120 tries: the disk is gone")

    def test_losses(self) -> None:
        """It is not known what has been lost: there is nothing that --lost could look at, nor a good backend."""
        for options in ({}, {"lost": True}, {"dry_run": True}, {"source": "a"}):
            said = self.refused(row("a", journal_trouble="no space"), row("b"), row("c"), **options)
            self.assertEqual(said, "what a has lost is not known: no space")

    def test_backends(self) -> None:
        """It does not have a backend that the configuration has by now."""
        for rows, name, options in (
            ([row("a"), row("c")], "b", {}),
            ([row("a"), row("c")], "b", {"lost": True}),
            ([row("a"), row("b", state="removed"), row("c")], "b", {}),
            ([row("b"), row("c")], "a", {"source": "a"}),
        ):
            said = self.refused(*rows, **options)
            self.assertEqual(
                said, f"the relay has no backend {name} at main; have it read the file: influxrelay reload"
            )
        said = self.refused(row("b"))
        self.assertIn("nothing is copied from a: the relay does not have it; influxrelay reload", said)
