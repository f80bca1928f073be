"""What of the configuration, of a request and of an answer is whose, with several workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from influxrelay import stopped, together
from influxrelay.config_values import Admin, Config, HTTPListener, HTTPOutput, Journal, UDPListener
from influxrelay.health import Check, Health, merge_health
from influxrelay.journal import Drop
from influxrelay.journal import Journal as JournalFile
from influxrelay.report import Refused, Request, Row
from influxrelay.split import for_worker, left_over, remove_journal
from influxrelay.write import Destination, Write

OUTPUT = HTTPOutput("one", "http://a/write", "http://a/write", "http://a/ping")


class ConfigTests(SynchronousTestCase):
    """The configuration of each worker."""

    def setUp(self) -> None:
        """Make a directory and a configuration."""
        self.directory = Path(self.mktemp())
        http = HTTPListener("main", ":1", "tcp:1", journal=Journal(str(self.directory)), outputs=(OUTPUT,))
        plain = HTTPListener("plain", ":2", "tcp:2", outputs=(OUTPUT,))
        udp = UDPListener("udp", ":3", "", 3, outputs=(OUTPUT,))
        self.config = Config("f", workers=2, admin=Admin(":4", "tcp:4"), http=(http, plain), udp=(udp,))

    def journals(self, config: Config) -> list[str]:
        """Return the journals' directories, seen from the first one's."""
        return [str(Path(e.journal.directory).relative_to(self.directory)) for e in config.http if e.journal]

    def test_each_worker(self) -> None:
        """The first worker has the journal's directory and the datagrams; others a journal of their own."""
        first, second = for_worker(self.config, 0), for_worker(self.config, 1)
        self.assertEqual((first.http, first.udp, first.admin), (self.config.http, self.config.udp, None))
        self.assertEqual((self.journals(second), second.udp, second.admin), (["worker-1"], (), None))
        self.assertEqual([each.endpoint for each in second.http], ["tcp:1", "tcp:2"])

    def test_left_over(self) -> None:
        """A journal beyond the workers is found, and its process listens nowhere; an empty directory is none."""
        self.assertEqual(left_over(self.config), [])
        for name in ("worker-1", "worker-3"):
            JournalFile(self.directory / name).close()
        for name in ("worker-7", "worker-x"):
            (self.directory / name).mkdir()
        self.assertEqual(left_over(self.config), [3])
        third = for_worker(self.config, 3)
        self.assertEqual([(each.name, each.endpoint) for each in third.http], [("main", "")])
        (self.directory / "worker-3" / "journal.sqlite.corrupt-1").touch()
        remove_journal(self.directory / "worker-3")
        remove_journal(self.directory / "worker-1")
        self.assertEqual(left_over(self.config), [])
        self.assertEqual([each.name for each in (self.directory / "worker-3").iterdir()], ["journal.sqlite.corrupt-1"])
        self.assertFalse((self.directory / "worker-1").exists())

    def test_stopped(self) -> None:
        """While the relay is stopped its commands read the journals of all workers as one."""
        write = Write(Destination(b"db", b"", b"ns", (b"", b"", b"")), b"db=db", b"", b"m v=1 1\n")
        for number, name in enumerate(("", "worker-1", "worker-3"), 1):
            journal = JournalFile(self.directory / name)
            journal.begin()
            journal.register({"one": OUTPUT.write_url})
            for _ in range(number):
                journal.add_dead_letter("one", 10.0 - number, write, 400, "no")
            journal.commit()
            journal.close()
        (row,) = stopped.run(self.config, Request("queues"), "it does not run")["queues"]
        self.assertEqual((row["listener"], row["state"], row["dead_letters"]), ("main", "stopped", 6))
        letters = stopped.run(self.config, Request("dead-letters list"), "")["dead_letters"]
        self.assertEqual([each["id"] for each in letters], ["3/1", "3/2", "3/3", "1/1", "1/2", "0/1"])
        self.assertEqual(stopped.run(self.config, Request("dead-letters drop", ids=("3/2", "0/1")), ""), {"dropped": 2})
        self.assertEqual(stopped.run(self.config, Request("dead-letters drop", all=True), ""), {"dropped": 4})


class CombineTests(SynchronousTestCase):
    """One answer for all workers."""

    def combine(self, command: str, answers: Any, silent: Any = (), refused: Any = (), **fields: Any) -> dict[str, Any]:
        """Return the answer."""
        return together.combine(Request(command, **fields), answers, dict(silent), dict(refused), 100.0)

    def test_split(self) -> None:
        """A dead letter's id leads to its worker; other requests are for all."""
        self.assertEqual(set(together.split(Request("queues"), [0, 1])), {0, 1})
        found = together.split(Request("dead-letters drop", ids=("1/5", "0/one:6", "1/7")), [0, 1])
        self.assertEqual({number: each.ids for number, each in found.items()}, {1: ("5", "7"), 0: ("one:6",)})
        for number in ("5", "2/5", "x/5", "/5"):
            self.assertRaises(Refused, together.split, Request("dead-letters drop", ids=(number,)), [0, 1])

    def test_rows(self) -> None:
        """A backend's rows become one: sums, the oldest, the worst state, and advice for all of it."""
        drops = [
            (Drop("b", "full", 1, 10, 5.0, 6.0),),
            (Drop("b", "full", 2, 20, 4.0, 5.0), Drop("b", "age", 1, 1, 1.0, 1.0)),
        ]
        common: dict[str, Any] = {"listener": "l", "backend": "b", "queue": "journal"}
        rows = [
            Row(**common, state="up", writes=3, bytes=30, oldest=90.0, drops=drops[0], missing=("x",)),
            Row(**common, state="behind", writes=2, bytes=20, oldest=80.0, drops=drops[1], dead_letters=4),
        ]
        answers = {number: {"relay": "running", "queues": [row.show(100.0)]} for number, row in enumerate(rows)}
        (row,) = self.combine("queues", answers)["queues"]
        self.assertEqual((row["state"], row["writes"], row["bytes"], row["oldest_age"]), ("behind", 5, 50, 20.0))
        self.assertEqual((row["dead_letters"], row["missing"]), (4, ("x",)))
        self.assertEqual([(each["reason"], each["writes"]) for each in row["drops"]], [("full", 3), ("age", 1)])
        self.assertEqual(row["drops"][0]["first"], "1970-01-01T00:00:04Z")
        self.assertIn("3 writes (30 B) will never get there", " ".join(row["advice"]))

    def test_who_does_not_answer(self) -> None:
        """A worker that is silent is named, and where something was to change that is an error."""
        queues = {0: {"relay": "running", "queues": []}}
        self.assertEqual(self.combine("queues", queues, {1: "does not run"})["silent"], ["worker 1 does not run"])
        with self.assertRaisesRegex(Refused, "^worker 1: does not run; it is done by worker 0$"):
            self.combine("queues pause", {0: {}}, {1: "does not run"})

    def test_who_refuses(self) -> None:
        """What only some know is done by them; what none knows is refused once."""
        one = {"listener": "l", "backend": "b", "writes": 1, "bytes": 2, "forgotten": True}
        self.assertEqual(self.combine("queues drop", {1: one}, (), {0: "there is no backend b"}), one)
        self.assertEqual(self.combine("queues drop", {0: one, 1: one})["bytes"], 4)
        with self.assertRaisesRegex(Refused, "^there is no backend b$"):
            self.combine("queues drop", {}, (), dict.fromkeys((0, 1), "there is no backend b"))
        with self.assertRaisesRegex(Refused, "^worker 1: there is no dead letter 5; it is done by worker 0$"):
            self.combine(
                "dead-letters drop", {0: {"dropped": 1}}, (), {1: "there is no dead letter 5"}, ids=("0/1", "1/5")
            )

    def test_health(self) -> None:
        """All must pass, and who does not, or is silent, is named; a backend fails if it does for any worker."""
        good, bad = Check("b", "l", passed=True, message="up"), Check("b", "l", passed=False, message="down")
        fine = Health("influxrelay", passed=True, message="ready", checks=(good,))
        self.assertEqual(merge_health({0: fine, 1: fine}, {}), fine)
        found = merge_health(
            {0: fine, 1: Health("influxrelay", passed=False, message="full", checks=(bad,))}, {2: "is gone"}
        )
        self.assertEqual((found.passed, found.message), (False, "worker 1: full; worker 2 is gone"))
        self.assertEqual(found.checks, (Check("b", "l", passed=False, message="worker 1: down"),))
        self.assertFalse(merge_health({}, {0: "does not run"}).passed)
