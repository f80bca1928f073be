"""The journal's thread: batches, their order, and what happens when the disk fails."""

from __future__ import annotations

import contextlib
import queue
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import JournalError
from influxrelay.journal import writer as keeper
from influxrelay.journal.records import Drop, JournalLimits, Record
from influxrelay.journal.store import FILE, Store
from influxrelay.journal.writer import CHECK_AGE, LAZY, JournalFullError, JournalWriter
from testing.journal_cases import OTHER, PLACE, record, write

DISK_FULL = (sqlite3.OperationalError, sqlite3.SQLITE_FULL, "database or disk is full")
CORRUPT = (sqlite3.DatabaseError, sqlite3.SQLITE_CORRUPT, "database disk image is malformed")


class FakeReactor(Clock):
    """A Clock, and the calls from the journal's thread, which are made when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()

    def callFromThread(self, function: Callable[..., None], *arguments: Any) -> None:
        """Keep a call."""
        self.reports.put((function, *arguments))

    def pump(self) -> None:
        """Wait for the end of a batch, and hear of it."""
        function = None
        while function is None or function.__name__ == "_fire":  # of which there may be one before the end
            function, *arguments = self.reports.get(timeout=10)
            function(*arguments)


def failing(kind: tuple[type[sqlite3.DatabaseError], int, str]) -> sqlite3.DatabaseError:
    """Return an error as SQLite raises it."""
    error = kind[0](kind[2])
    error.sqlite_errorcode = kind[1]
    return error


class KeeperCase(SynchronousTestCase):
    """A keeper on a journal in a new directory."""

    def setUp(self) -> None:
        """Start the default one."""
        self.directory = Path(self.mktemp())
        self.now = 1000.0
        self.logged: list[tuple[LogLevel, str]] = []
        observer = self.logged_event
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.keeper: Any = None
        self.addCleanup(self.stop)
        self.start()

    def logged_event(self, event: Any) -> None:
        """Note what the keeper logs."""
        if event.get("log_namespace") == "influxrelay.journal.writer.JournalWriter":
            self.logged.append((event["log_level"], formatEvent(event)))

    def start(self, **limits: Any) -> Store:
        """Start a keeper with other limits, in place of the one before."""
        self.stop()
        self.reactor = FakeReactor()
        self.keeper = JournalWriter(self.reactor, self.directory, JournalLimits(**limits), clock=lambda: self.now)
        self.positions = self.keeper.open({"a": ("a", "http://a")})
        self.journal: Store = self.keeper._journal
        self.keeper.start()
        return self.journal

    def stop(self) -> None:
        """Stop it, and wait for that."""
        if self.keeper is not None and self.keeper._stopped is None:
            stopped = self.keeper.stop()
            while not stopped.called:
                self.reactor.pump()

    def wait(self, deferred: Deferred[Any]) -> Any:
        """Return what a Deferred fires with."""
        while not deferred.called:
            self.reactor.pump()
        return self.successResultOf(deferred)

    def hold(self) -> Deferred[None]:
        """Make the keeper busy, so that what comes next is one batch."""
        return self.keeper._call(lambda _: None)  # type: ignore[no-any-return]

    def append(self, *seqs: int) -> None:
        """Append and wait."""
        for seq in seqs:
            while self.keeper.last_number < seq:
                self.keeper.next_number()
            self.wait(self.keeper.append(record(seq)))

    def seqs(self) -> list[int]:
        """Return what is in the log."""
        read = self.keeper._call(lambda journal: [each.seq for each in journal.read(PLACE, 0, 1 << 30)[0]])
        return self.wait(read)  # type: ignore[no-any-return]

    def break_journal(self, name: str, *problems: BaseException) -> None:
        """Let a method of the journal fail so many times."""
        method = getattr(Store, name)
        left = list(problems)

        def fail(journal: Store, *arguments: Any) -> Any:
            if left:
                raise left.pop(0)
            return method(journal, *arguments)

        self.patch(Store, name, fail)

    def lines(self, level: LogLevel) -> list[str]:
        """Return what was logged at a level."""
        return [text for each, text in self.logged if each is level]


class BatchTests(KeeperCase):
    """What is done together, and in which order."""

    def test_group_commit(self) -> None:
        """What comes while a batch is under way is one transaction, and each is told when it is committed."""
        held = self.hold()
        appended = [self.keeper.append(record(seq)) for seq in range(1, 51)]
        self.wait(held)
        self.assertEqual(self.keeper.commits.count, 1)
        for each in appended:
            self.assertNoResult(each)
        self.wait(appended[-1])
        self.assertEqual(self.keeper.commits.count, 2)
        self.assertTrue(all(each.called for each in appended))
        second = sqlite3.connect(self.directory / FILE)
        self.addCleanup(second.close)
        self.assertEqual(second.execute("SELECT COUNT(*) FROM log").fetchone(), (50,))
        self.assertGreater(self.keeper.used, 0)
        self.assertGreater(self.keeper.commits.sum, 0)

    def test_order(self) -> None:
        """In a batch: appends, strikes, what is insisted on, cursors, calls."""
        held = self.hold()
        seen: list[Any] = []
        called = self.keeper._call(lambda journal: (journal.drops(), len(journal.backlog("a")), list(seen)))
        self.keeper.advance("a", PLACE, 3)
        self.keeper._insist(lambda journal: journal.count_drop("a", "full", 1.0, 5))
        self.keeper._insist(lambda journal: seen.extend(each.seq for each in journal.read(PLACE, 0, 1 << 20)[0]))
        struck = self.keeper.strike(2)
        appended = [self.keeper.append(record(seq)) for seq in (1, 2, 3)]
        self.wait(held)
        self.assertEqual(self.wait(called), ([Drop("a", "full", 1, 5, 1.0, 1.0)], 0, [1, 3]))
        for each in (struck, *appended):
            self.successResultOf(each)

    def test_lazy_cursors(self) -> None:
        """Cursors alone are written after a while, all at once."""
        self.append(1, 2)
        self.keeper.advance("a", PLACE, 1)
        self.keeper.advance("a", PLACE, 2)
        self.reactor.advance(LAZY - 0.01)
        self.assertTrue(self.reactor.reports.empty())
        self.reactor.advance(0.01)
        self.reactor.pump()
        self.assertEqual((self.keeper.commits.count, self.seqs()), (3, []))

    def test_cursors_while_busy(self) -> None:
        """Cursors that move while a batch is under way are written after a while as well."""
        self.append(1)
        held = self.hold()
        self.keeper.advance("a", PLACE, 1)
        self.wait(held)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.reactor.advance(LAZY)
        self.reactor.pump()
        self.assertEqual(self.seqs(), [])

    def test_cursors_with_the_next_write(self) -> None:
        """Cursors are written with the next write."""
        self.append(1)
        self.keeper.advance("a", PLACE, 1)
        self.append(2)
        self.assertEqual((self.reactor.getDelayedCalls(), self.seqs()), ([], [2]))

    def test_stop(self) -> None:
        """At the stop all that was given is done, cursors too, and the files are closed."""
        self.append(1, 2)
        self.keeper.advance("a", PLACE, 1)
        appended = self.keeper.append(record(3))
        self.keeper.advance("a", PLACE, 2)
        self.stop()
        self.successResultOf(appended)
        self.start()
        self.assertEqual(self.keeper.last_number, 3)
        self.assertEqual(self.seqs(), [3])

    def test_strike_at_the_stop(self) -> None:
        """What the last commits lead to is done before the stop as well."""
        struck: list[Any] = []

        def strike(_: None) -> None:
            self.keeper.strike(1).addCallback(struck.append)

        self.keeper.append(record(1)).addCallback(strike)
        self.stop()
        self.assertEqual(struck, [None])
        self.start()
        self.assertEqual(self.seqs(), [])

    def test_stop_before_start(self) -> None:
        """A keeper that was never started is stopped at once."""
        keeper = JournalWriter(self.reactor, self.mktemp(), JournalLimits())
        self.successResultOf(keeper.stop())


class RegisterTests(KeeperCase):
    """Backends that change while the journal works."""

    def register(self, **backends: str) -> None:
        """Say which backends there are, each at a location of its key's name."""
        self.keeper.register({key: (name, f"http://{key}") for key, name in backends.items()})

    def backlogs(self, *names: str) -> dict[str, list[int]]:
        """Return up to where each backend has what is in the log."""
        call = self.keeper._call(lambda journal: {name: [seq for _, seq in journal.backlog(name)] for name in names})
        return self.wait(call)  # type: ignore[no-any-return]

    def test_new(self) -> None:
        """A new backend gets what comes later, also in the same transaction, and nothing from before."""
        self.append(1)
        held = self.hold()
        self.register(a="a", b="b")
        appended = self.keeper.append(record(2))
        self.wait(held)
        self.wait(appended)
        self.assertEqual(self.backlogs("a", "b"), {"a": [0], "b": [1]})

    def test_renamed(self) -> None:
        """What was noted under the old name, before and in the same transaction, is found under the new one."""
        self.append(1, 2, 3)
        self.register(a="a", b="b")
        held = self.hold()
        self.keeper.advance("a", PLACE, 2)
        self.register(a="b", b="a")
        self.keeper.advance("a", PLACE, 3)
        self.wait(held)
        self.assertEqual(self.backlogs("a", "b"), {"a": [], "b": []})
        depths = self.wait(self.keeper._call(Store.depths))
        self.assertEqual({each.backend: each.location for each in depths}, {"b": "http://a", "a": "http://b"})

    def test_tried_again(self) -> None:
        """While the disk does not take it the old names hold, and then the new ones."""
        self.append(1, 2)
        self.break_journal("commit", *[failing(DISK_FULL)] * 2)
        self.keeper.advance("a", PLACE, 1)
        self.register(a="new")
        for _ in range(2):
            self.reactor.pump()
            self.assertEqual(self.keeper._names, {"a": "a"})
            self.reactor.advance(LAZY)
        self.assertEqual(self.backlogs("new"), {"new": [1]})
        self.assertEqual(self.keeper._names, {"a": "new"})

    def test_losses(self) -> None:
        """What was lost is told of the right backend also while two of them exchange their names."""
        seen: list[dict[str, int]] = []
        commit = Store.commit

        def losses() -> dict[str, int]:
            return {key: len(self.keeper.losses(key)) for key in ("a", "b")}

        def look_and_commit(journal: Store) -> None:
            seen.append(losses())
            commit(journal)

        self.register(a="a", b="b")
        self.wait(self.keeper._call(lambda journal: journal.count_drop("a", "full", 1.0, 5)))
        self.patch(Store, "commit", look_and_commit)
        self.register(a="b", b="a")
        self.wait(self.hold())
        self.assertEqual([*seen, losses()], [{"a": 1, "b": 0}] * (len(seen) + 1))

    def test_removed(self) -> None:
        """A backend that is removed holds nothing back, and what comes of it is ignored."""
        self.append(1)
        self.register(a="a", b="b")
        self.append(2)
        self.register(b="b")
        self.keeper.advance("a", PLACE, 2)
        self.keeper.advance("b", PLACE, 2)
        self.append(3)
        self.assertEqual((self.keeper._names, self.seqs()), ({"b": "b"}, [3]))

    def test_returns(self) -> None:
        """A backend that returns, perhaps by another name, goes on where it was."""
        self.append(1)
        self.register(a="a", b="b")
        self.append(2)
        self.register(a="a")
        self.append(3)
        locations = {"a": "http://a", "again": "http://b", "other": "http://other"}
        passed = self.keeper.returning(locations, {"a": "a"})
        self.assertEqual(self.wait(passed), {"again": [(PLACE, 1)]})
        self.register(a="a", b="again", other="other")
        self.assertEqual(self.backlogs("again", "other"), {"again": [1], "other": []})

    def test_sync(self) -> None:
        """What a commit survives can change between two of them."""
        self.keeper.reconfigure(JournalLimits(), full_sync=True)
        pragma = "PRAGMA synchronous"
        self.assertEqual(self.wait(self.keeper._call(lambda journal: journal._db.execute(pragma).fetchone())), (2,))
        self.keeper.reconfigure(JournalLimits(), full_sync=False)
        self.assertEqual(self.wait(self.keeper._call(lambda journal: journal._db.execute(pragma).fetchone())), (1,))

    def test_never_started(self) -> None:
        """A journal that was only tried is closed, and another can have it."""
        self.stop()
        for _ in range(2):
            keeper = JournalWriter(self.reactor, self.directory, JournalLimits())
            keeper.open({"a": ("a", "http://a")})
            self.successResultOf(keeper.stop())


class TroubleTests(KeeperCase):
    """When the disk fails."""

    def test_appends_fail(self) -> None:
        """Who waits for a failed commit is told, and the trouble is logged once when it begins and when it ends."""
        self.break_journal("append", *[failing(DISK_FULL)] * 3)
        held = self.hold()
        called = self.keeper._call(lambda _: 1)
        appended = [self.keeper.append(record(seq)) for seq in (1, 2)]
        self.wait(held)
        self.reactor.pump()
        for each in (*appended, called):
            error = self.failureResultOf(each, JournalError).value
            self.assertEqual(str(error), f"{self.directory}: database or disk is full")
        for seq in (3, 4):
            again = self.keeper.append(record(seq))
            self.reactor.pump()
            self.failureResultOf(again, JournalError)
        self.assertEqual(self.keeper.trouble, "OperationalError: database or disk is full")
        self.append(5)
        self.assertEqual((self.keeper.trouble, self.seqs()), ("", [5]))
        self.assertEqual(
            self.lines(LogLevel.critical),
            [f"the journal in {self.directory}: OperationalError: database or disk is full"],
        )
        self.assertEqual(self.lines(LogLevel.info), [f"the journal in {self.directory} works again"])

    def test_tried_again(self) -> None:
        """Strikes, cursors and what is insisted on are tried again until they arrive, after a while each time."""
        self.append(1, 2, 3)
        self.break_journal("commit", *[failing(DISK_FULL)] * 3)
        held = self.hold()
        struck = self.keeper.strike(2)
        self.keeper.advance("a", PLACE, 1)
        self.keeper._insist(lambda journal: journal.count_drop("a", "full", 1.0, 5))
        for _ in range(2):
            self.reactor.pump()
            self.reactor.advance(LAZY)
        self.failureResultOf(held, JournalError)
        self.failureResultOf(struck, JournalError)
        self.keeper.advance("a", PLACE, 1)
        for _ in range(2):
            self.reactor.pump()
            self.reactor.advance(LAZY)
        self.assertEqual(self.seqs(), [3])
        self.assertEqual(self.wait(self.keeper._call(Store.drops)), [Drop("a", "full", 1, 5, 1.0, 1.0)])
        self.assertEqual(len(self.lines(LogLevel.critical)), 1)

    def test_newer_cursor_wins(self) -> None:
        """A cursor that is tried again does not undo a newer one."""
        self.append(1, 2, 3)
        self.break_journal("commit", failing(DISK_FULL))
        self.keeper.advance("a", PLACE, 1)
        self.reactor.advance(LAZY)
        self.keeper.advance("a", PLACE, 3)
        self.reactor.pump()
        self.reactor.advance(LAZY)
        self.reactor.pump()
        self.assertEqual(self.seqs(), [])

    def test_cannot_be_undone(self) -> None:
        """Where not even the undoing works, who waits is told all the same."""
        self.break_journal("commit", failing(DISK_FULL))
        self.break_journal("rollback", failing(DISK_FULL))
        appended = self.keeper.append(record(1))
        self.reactor.pump()
        self.failureResultOf(appended, JournalError)
        self.keeper._journal._db.execute("ROLLBACK")
        self.append(2)
        self.assertEqual(self.seqs(), [2])

    def test_trouble_at_the_stop(self) -> None:
        """A disk that fails does not hold up the stop."""
        self.append(1)
        self.break_journal("commit", *[failing(DISK_FULL)] * 100)
        self.keeper.advance("a", PLACE, 1)
        struck = self.keeper.strike(1)
        self.stop()
        self.failureResultOf(struck, JournalError)

    def test_full_disk(self) -> None:
        """A disk that is really full fails what is appended, and is well again when there is room."""
        journal = self.journal
        (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
        journal._db.execute(f"PRAGMA max_page_count = {pages + 8}")
        self.append(1)
        large = self.keeper.append(Record(2, 1.0, write(bytes(1_000_000))))
        self.reactor.pump()
        self.assertIn("database or disk is full", str(self.failureResultOf(large, JournalError).value))
        self.assertIn("database or disk is full", self.keeper.trouble)
        self.append(3)
        self.assertEqual((self.keeper.trouble, self.seqs()), ("", [1, 3]))

    def test_corruption_at_run_time(self) -> None:
        """A journal that turns out to be corrupt is moved aside, and a new one goes on where the numbers were."""
        self.append(1, 2)
        self.break_journal("append", failing(CORRUPT))
        appended = self.keeper.append(record(3))
        self.keeper._insist(lambda journal: journal.count_drop("a", "full", 1.0, 5))
        self.reactor.pump()
        self.failureResultOf(appended, JournalError)
        self.append(4)
        self.assertEqual((self.keeper.trouble, self.seqs()), ("", [4]))
        (aside,) = [path for path in self.directory.iterdir() if path.name.endswith(".corrupt-19700101T001640")]
        self.assertEqual(aside.stat().st_mode & 0o777, 0o600)
        self.assertIn("is damaged (database disk image is malformed)", self.lines(LogLevel.critical)[0])
        self.assertIn(aside.name, self.lines(LogLevel.critical)[0])
        counted = [(drop.backend, drop.reason, drop.writes, drop.bytes) for drop in self.keeper.losses("a")]
        self.assertEqual(counted, [("a", "damaged", 1, 0), ("a", "full", 1, 5)])

    def test_no_new_journal(self) -> None:
        """Where a new journal cannot be begun at once, that is tried again with each batch until it can.

        What was moved aside stays as it was.
        """
        self.append(1)
        self.break_journal("append", failing(CORRUPT))
        self.break_journal("register", failing(DISK_FULL), failing(DISK_FULL))
        for seq in (2, 3):
            appended = self.keeper.append(record(seq))
            self.reactor.pump()
            self.failureResultOf(appended, JournalError)
        self.assertNotEqual(self.keeper.trouble, "")
        self.append(4)
        self.assertEqual((self.keeper.trouble, self.seqs()), ("", [4]))
        (aside,) = self.directory.glob(f"{FILE}.corrupt-*[0-9]")
        with contextlib.closing(sqlite3.connect(aside)) as db:
            self.assertEqual(db.execute("SELECT seq FROM log").fetchall(), [(1,)])

    def test_stop_without_a_journal(self) -> None:
        """A keeper that could not begin a new journal can be stopped."""
        self.break_journal("append", failing(CORRUPT))
        self.break_journal("register", failing(DISK_FULL))
        appended = self.keeper.append(record(1))
        self.reactor.pump()
        self.failureResultOf(appended, JournalError)
        self.stop()


class LimitTests(KeeperCase):
    """How much is kept."""

    def test_reject(self) -> None:
        """A full journal refuses new writes, and takes them again when there is room; that is no trouble."""
        used = self.keeper.used
        self.start(max_bytes=used + 50_000)
        self.wait(self.keeper.append(Record(1, 1.0, write(bytes(100_000)))))
        refused = self.keeper.append(record(2))
        struck = self.keeper.strike(7)
        self.reactor.pump()
        error = self.failureResultOf(refused, JournalFullError).value
        self.assertEqual(str(error), f"{self.directory}: the journal is full ({used + 50_000} bytes)")
        self.wait(struck)
        self.assertEqual(self.keeper.trouble, "")
        self.keeper.advance("a", PLACE, 1)
        self.reactor.advance(LAZY)
        self.reactor.pump()
        self.append(3)
        self.assertEqual(self.seqs(), [3])

    def test_drop_oldest(self) -> None:
        """A full journal drops its oldest writes, counts them, and keeps the new ones."""
        limit = self.keeper.used + 100_000
        self.start(max_bytes=limit, drop_oldest=True)
        for seq in range(1, 11):
            self.wait(self.keeper.append(Record(seq, seq, write(bytes(20_000), OTHER))))
        self.assertLessEqual(self.keeper.used, limit)
        seqs = self.wait(self.keeper._call(lambda journal: [each.seq for each in journal.read(OTHER, 0, 1 << 20)[0]]))
        self.assertEqual(seqs, list(range(seqs[0], 11)))
        self.assertGreaterEqual(len(seqs), 3)
        (drop,) = self.wait(self.keeper._call(Store.drops))
        self.assertEqual((drop.reason, drop.writes, drop.first, drop.last), ("full", 10 - len(seqs), 1, 10 - len(seqs)))

    def test_age(self) -> None:
        """What is too old is dropped, at the next commit after a look is due."""
        self.start(max_age=100.0)
        self.append(95, 96)  # accepted at 950 and 960
        self.now += CHECK_AGE - 1
        self.assertEqual(self.seqs(), [95, 96])
        self.now = 1055.0
        self.wait(self.hold())
        self.assertEqual(self.seqs(), [96])
        self.assertEqual(self.wait(self.keeper._call(Store.drops)), [Drop("a", "age", 1, 3, 950.0, 950.0)])


class OpenTests(KeeperCase):
    """How a keeper begins."""

    def open(self) -> Store:
        """Open the journal with a new keeper, which is not started."""
        self.keeper = None
        keeper = JournalWriter(self.reactor, self.directory, JournalLimits(), clock=lambda: self.now)
        keeper.open({"a": ("a", "http://a")})
        self.addCleanup(keeper._journal.close)
        return keeper._journal

    def test_in_use(self) -> None:
        """A journal in use is refused."""
        keeper = self.keeper
        self.assertIn("another relay", str(self.assertRaises(JournalError, self.open)))
        self.keeper = keeper

    def test_damaged(self) -> None:
        """Files that are damaged, wherever it shows, are moved aside, and a new journal is begun."""
        self.append(*range(1, 30))
        self.stop()
        path = self.directory / FILE
        whole = path.read_bytes()
        wild = bytearray(whole)
        for page in range(1, len(whole) // 4096):
            wild[page * 4096 : page * 4096 + 8] = b"\xff" * 8
        for content in (random.Random(2).randbytes(5000), whole[:4096], bytes(wild)):
            path.write_bytes(content)
            self.now += 1
            journal = self.open()
            self.assertEqual(journal.backlog("a"), [])
            journal.close()
        self.assertEqual(len(self.lines(LogLevel.critical)), 3)
        self.assertEqual(len([each for each in self.directory.iterdir() if "corrupt" in each.name]), 3)

    def test_impossible(self) -> None:
        """A journal that cannot be opened is refused with one line: no directory, no room, no way aside."""
        self.stop()
        self.break_journal("register", failing(DISK_FULL))
        self.assertIn("database or disk is full", str(self.assertRaises(JournalError, self.open)))
        self.break_journal("register", failing(CORRUPT))
        self.patch(keeper, "move_aside", lambda *_: (self.directory / "missing").rename(self.directory / "x"))
        self.assertIn("No such file", str(self.assertRaises(JournalError, self.open)))
        self.directory = self.directory / FILE
        self.assertIn("exists", str(self.assertRaises(JournalError, self.open)))
