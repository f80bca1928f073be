"""What a backend has missed."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.operations.views import Refused, Request
from influxrelay.transport.tls import ClientTLS
from influxrelay.verification.points import Points
from influxrelay.verification.server import Series, Server
from influxrelay.verification.statements import Measurement, Window
from influxrelay.verification.tombstones import Missed, Tombstones, read_missed

M = Measurement("d", "rp", "m")


def missed(statement: str, *databases: str) -> Missed:
    """Return a change that was accepted at the time 100."""
    return Missed.read({"id": "5", "when": 100, "databases": databases or ("d",), "statement": statement})


@attrs.define
class Asked(Server):
    """A server that gives the point of the series x at the time 5 for whatever it is asked."""

    statements: list[str] = attrs.field(factory=list)

    def ask(self, statement: str) -> list[Series]:
        """Keep the statement."""
        self.statements.append(statement)
        return [Series("m", {"h": "x"}, ["time", "f"], [[5, 1.0]])]


class TombstoneTests(SynchronousTestCase):
    """What is held back."""

    def test_concerns(self) -> None:
        """A statement concerns the measurements that it names, in its databases; without a name all."""
        cases: dict[str, tuple[bool, bool]] = {
            "DELETE FROM m": (True, False),
            'DELETE FROM "m" WHERE time < 5': (True, False),
            "DELETE WHERE time < 5": (True, True),
            "DELETE FROM /^[mn]$/": (True, True),
            "DELETE FROM /\\Qm/": (True, True),  # not Python's
            "DROP SERIES WHERE h = 'x'": (True, True),
            "DROP SERIES FROM n": (False, True),
            "DROP MEASUREMENT m": (True, False),
            "DROP DATABASE d": (True, True),
            "DROP RETENTION POLICY rp ON d": (True, True),
            "DROP RETENTION POLICY other ON d": (False, False),
            "what is this": (True, True),
        }
        for statement, expected in cases.items():
            found = missed(statement)
            self.assertEqual((found.concerns(M), found.concerns(M._replace(name="n"))), expected, statement)
            self.assertFalse(found.concerns(M._replace(database="e")), statement)

    def test_drops(self) -> None:
        """What is dropped as a whole is not created again."""
        stones = Tombstones([missed("DROP RETENTION POLICY rp ON d"), missed("DROP DATABASE e", "e")])
        found = [stones.drops(*place) is not None for place in (("d", "rp"), ("d", "x"), ("e", "x"), ("f", "rp"))]
        self.assertEqual(found, [True, False, True, False])

    def hold(self, statement: str, window: Window, points: Points) -> tuple[Points, list[str], int]:
        """Return what is left, what the server was asked, and how many points are held back."""
        server, stones = Asked("b", "", ClientTLS()), Tombstones([missed(statement)])
        left = stones.hold(server, M, window, points)
        return left, server.statements, sum(stones.held.values())

    def test_hold(self) -> None:
        """Points of before the change are held back; what its condition means the server tells."""
        x, y = (("h", "x"),), (("h", "y"),)
        points: Any = {x: {5: {"f": 1.0}, 101: {"f": 2.0}}, y: {5: {"f": 3.0}}}
        self.assertEqual(self.hold("DROP MEASUREMENT m", Window(0, 200), points), ({x: {101: {"f": 2.0}}}, [], 2))
        left, asked, held = self.hold("DELETE FROM m WHERE h = 'x' AND time < 50", Window(0, 200), points)
        self.assertEqual((left, held), ({x: {101: {"f": 2.0}}, y: {5: {"f": 3.0}}}, 1))
        self.assertEqual(
            asked,
            [
                (
                    'SELECT *::field FROM "d"."rp"."m" WHERE ("h"::tag = \'x\' AND time < 50) AND time >= 0'
                    " AND time <= 100 GROUP BY *"
                )
            ],
        )
        self.assertEqual(self.hold("DROP MEASUREMENT m", Window(101, 200), points), (points, [], 0))
        self.assertEqual(self.hold("DROP MEASUREMENT n", Window(0, 200), points), (points, [], 0))

    def test_not_told(self) -> None:
        """A relay that does not tell what was missed is not one that has missed nothing."""

        def ask(request: Request) -> dict[str, Any]:
            raise Refused(f"no answer to {request.command}")

        self.assertRaises(Refused, read_missed, ask, "main")

    def test_notes(self) -> None:
        """It is said what was not copied, and what to do."""
        shown = {"id": "5", "when": 100, "databases": ["d"], "statement": "DROP MEASUREMENT m", "backend": "b"}
        stones = Tombstones(read_missed(lambda request: {"missed": [shown]}, "main")["b"])
        stones.hold(Asked("b", "", ClientTLS()), M, Window(0, 9), {(): {5: {"f": 1}}})
        self.assertEqual(
            list(stones.notes("b")),
            [
                (
                    "1 point of b not copied: b has missed 'DROP MEASUREMENT m'; if that is to hold, execute it"
                    " there with: influxrelay dead-letters replay 5, and repair b"
                )
            ],
        )
