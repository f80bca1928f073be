"""Statements that change something: every backend executes them, in order with the writes."""

from __future__ import annotations

import re
from functools import partial

from influxrelay.config.settings import JournalConfig
from influxrelay.operations.views import summary, whole
from testing.logs import watch_log
from testing.query_case import FAILED, JSON, RESULT, ROWS, QueryTestCase, asking, result
from testing.scripted import BackendConnection, Hold, Received, answer, request, reset, until

MISSING = b'{"results":[{"statement_id":0,"error":"database not found: d"}]}\n'
NO_DATABASE = b'{"error":"database not found: \\"d\\""}\n'


def _kind(asked: Received) -> str:
    found = re.search(rb"q=(DELETE|[A-Z]+\+[A-Z]+)", asked.query + asked.body)
    return found[1].decode().replace("+", " ") if found is not None else asked.path.decode()


class ChangeTests(QueryTestCase):
    """Statements that change something."""

    async def test_every_backend(self) -> None:
        """A change goes to every backend, by the client's method, and one of the responses comes back."""
        for method in (b"GET", b"POST"):
            backends = [self.backend(result()) for _ in range(2)]
            found = await self.ask(self.relay(*backends), asking("CREATE DATABASE d", method=method))
            self.assertEqual((found.status, found.body), (200, RESULT))
            for backend in backends:
                await until(partial(bool, backend.requests), "the change")
                (asked,) = backend.requests
                self.assertEqual(asked.method, method)
                self.assertIn(b"q=CREATE+DATABASE+d", asked.query + asked.body)

    async def test_order(self) -> None:
        """A change waits for the writes before it, and the writes behind it wait for the change; with a queue, too."""
        for buffer, journal in ((0, None), (1, None), (0, JournalConfig(self.mktemp()))):
            await self.check_order(buffer, journal)

    async def check_order(self, buffer: int, journal: JournalConfig | None) -> None:
        """Check the order of a write, a change and a write."""
        first, change = Hold(answer(204)), Hold(result())
        backend = self.backend(first, change, answer(204))
        relay = self.relay(self.output(backend, buffer_size_mb=buffer), journal=journal)
        clients = [await self.client(relay) for _ in range(3)]
        clients[0].send(request(b"/write?db=d"))
        await until(lambda: len(backend.requests) == 1, "the write")
        clients[1].send(asking("DROP MEASUREMENT m", more=b"&db=d"))
        await until(lambda: relay.readers.active, "the change")
        clients[2].send(request(b"/write?db=d"))
        await self.ask(relay, request(b"/ping", b"", method=b"GET"))
        self.assertEqual(len(backend.requests), 1)
        first.release()
        await until(lambda: len(backend.requests) == 2, "the change")
        await self.ask(relay, request(b"/ping", b"", method=b"GET"))
        self.assertEqual(len(backend.requests), 2)
        change.release()
        self.assertEqual([(await each.answer()).status for each in clients], [204, 200, 204])
        self.assertEqual([b"/write" in each.path for each in backend.requests], [True, False, True])

    async def test_now(self) -> None:
        """Every backend gets the same time for ``now()``."""
        backends = [self.backend(result()) for _ in range(2)]
        await self.ask(self.relay(*backends), asking("DELETE FROM m WHERE time < now() - 1h", more=b"&db=d"))
        await until(lambda: all(each.requests for each in backends), "the change")
        targets = {each.requests[0].query for each in backends}
        self.assertEqual(len(targets), 1)
        self.assertNotIn(b"now", targets.pop())

    async def test_mixed(self) -> None:
        """Statements are executed one by one, and their results are numbered; behind an error no more are executed."""
        wrong = b'{"results":[{"statement_id":0,"error":"no such thing"}]}\n'
        for last, tail in (
            (result(ROWS), ROWS.replace(b":0,", b":1,", 1)[12:-3]),
            (result(wrong), b'{"statement_id":1,"error":"no such thing"}'),
        ):
            backend = self.backend(result(), last, result())
            found = await self.ask(self.relay(backend), asking("CREATE DATABASE d; SELECT v FROM m; SHOW USERS"))
            third = b'{"statement_id":2,"error":"not executed"}' if b"error" in tail else b'{"statement_id":2}'
            self.assertEqual(found.body, b'{"results":[{"statement_id":0},' + tail + b"," + third + b"]}\n")
            self.assertEqual(self.named(found), b"backend-0")

    async def test_a_backend_is_down(self) -> None:
        """A backend that is down gets a change later, from buffer or journal, between the writes around it."""
        for buffer, journal in ((1, None), (0, JournalConfig(self.mktemp()))):
            up, down = [self.backend(answer(204), result(), answer(204)) for _ in range(2)]
            await down.stop()
            outputs = [self.output(each, f"o{index}", buffer_size_mb=buffer) for index, each in enumerate((up, down))]
            relay = self.relay(*outputs, journal=journal)
            answers = [
                await self.ask(relay, each)
                for each in (
                    request(b"/write?db=d"),
                    asking("DROP MEASUREMENT m", more=b"&db=d"),
                    request(b"/write?db=d"),
                )
            ]
            self.assertEqual([each.status for each in answers], [204, 200, 204])
            down.listen()
            await until(lambda down=down: len(down.requests) == 3, "what was kept")  # type: ignore[misc]
            self.assertEqual([b"/write" in each.path for each in down.requests], [True, False, True])
            await until(lambda relay=relay: relay.senders[1].is_idle, "the end")  # type: ignore[misc]
            self.assertEqual(relay.senders[1].change_outcomes, {"executed": 1})

    async def test_none_answers(self) -> None:
        """A change that no backend executes is an error, and is kept for none of them."""
        down = self.backend(result())
        await down.stop()
        relay = self.relay(self.output(down, buffer_size_mb=1))
        found = await self.ask(relay, asking("CREATE DATABASE d"))
        self.assert_error(found, 503, "unable to execute the change")
        down.listen()
        await until(lambda: relay.senders[0].is_idle, "the end")
        self.assertEqual(down.requests, [])

    async def test_slow_backend(self) -> None:
        """What is behind a change waits for it at the backend that is slow with it, and nowhere else."""
        quick, hold = self.backend(result(), answer(204), result()), Hold(result())
        slow = self.backend(hold, answer(204), answer(204))
        relay = self.relay(quick, slow)
        for each, status in (
            (asking("DELETE FROM m", more=b"&db=d"), 200),
            (request(b"/write?db=d"), 204),
            (asking("CREATE USER u WITH PASSWORD 'p'; SHOW USERS"), 200),
        ):
            found = await self.ask(relay, each)
            self.assertEqual(found.status, status)
        self.assertEqual(self.named(found), b"backend-0")
        await self.ask(relay, request(b"/write?db=other"))
        await until(lambda: len(slow.requests) == 2, "the write to another database")
        self.assertIn(b"db=other", slow.requests[1].query)
        self.assertEqual(self.named(await self.ask(relay, asking("SHOW DATABASES"))), b"backend-0")
        hold.release()
        await until(lambda: len(slow.requests) == 4, "the rest")

    async def test_missing_database(self) -> None:
        """A change waits at a backend that lacks its database, until that is there."""
        refusal = Hold(result(MISSING))  # whoever refuses first decides the answer
        late = self.backend(refusal, result(MISSING), result())
        relay = self.relay(*[self.output(each, buffer_size_mb=1) for each in (self.backend(result()), late)])
        found = await self.ask(relay, asking("CREATE RETENTION POLICY r ON d DURATION 1h REPLICATION 1"))
        self.assertEqual(found.body, RESULT)
        refusal.release()
        await until(lambda: relay.senders[1].change_outcomes["executed"], "the change")
        self.assertEqual(len(late.requests), 3)

    async def test_database_is_created(self) -> None:
        """The creation of a database does not wait for the writes, and the changes, that wait for the database."""
        there = False

        def answering(connection: BackendConnection) -> None:
            nonlocal there
            asked = late.requests[-1]
            there = there or b"CREATE+DATABASE" in asked.query + asked.body
            if b"/write" in asked.path:
                (answer(204) if there else answer(404, NO_DATABASE, JSON))(connection)
            else:
                result(RESULT if there else MISSING)(connection)

        late = self.backend(answering)
        relay = self.relay(
            self.output(self.backend(answer(204), result()), "a", buffer_size_mb=1),
            self.output(late, "b", buffer_size_mb=1),
        )
        for each in (
            request(b"/write?db=d&consistency=any"),
            asking("DELETE FROM m", more=b"&db=d&consistency=any"),
            asking("CREATE USER u WITH PASSWORD 'p'", more=b"&consistency=any"),
        ):
            self.assertLess((await self.ask(relay, each)).status, 300)
        await self.ask(relay, asking("CREATE DATABASE d"))
        await until(lambda: relay.senders[1].is_idle, "the end")
        executed = [_kind(each) for each in late.requests]
        self.assertEqual(
            list(dict.fromkeys(reversed(executed)))[::-1], ["/write", "DELETE", "CREATE USER", "CREATE DATABASE"]
        )

    async def test_create_databases(self) -> None:
        """With ``create-databases`` the relay creates what a change misses, as the same user."""
        late = self.backend(result(MISSING), result(), result())
        kept = self.output(late, "b", buffer_size_mb=1, create_databases=True)
        relay = self.relay(self.output(self.backend(result()), "a"), kept)
        q, headers = "CREATE RETENTION POLICY r ON d DURATION 1h REPLICATION 1", [b"Authorization: Basic eDp5"]
        self.assertEqual((await self.ask(relay, asking(q, *headers, more=b"&u=me&p=secret"))).status, 200)
        await until(partial(relay.senders[1].change_outcomes.__getitem__, "executed"), "the change")
        self.assertEqual([_kind(each) for each in late.requests][1:], ["CREATE DATABASE", "CREATE RETENTION"])
        created = late.requests[1]
        self.assertEqual(created.query, b"q=CREATE+DATABASE+%22d%22&u=me&p=secret")
        self.assertEqual(created.header("authorization"), b"Basic eDp5")

    async def test_repeated(self) -> None:
        """Where it is not known whether a backend has executed a change, "already exists" says that it has."""
        exists = result(b'{"results":[{"statement_id":0,"error":"user already exists"}]}\n')
        for first in (reset, answer(503)):
            relay = self.relay(
                self.output(self.backend(result()), "a"),
                self.output(self.backend(first, exists), "b", buffer_size_mb=1),
            )
            found = await self.ask(relay, asking("CREATE USER me WITH PASSWORD 'secret'"))
            self.assertEqual(found.status, 200)
            late = relay.senders[1]
            await until(partial(late.change_outcomes.__getitem__, "executed"), "the change")
            self.assertEqual(late.backlog.dead_letters(), [])

    async def test_missed(self) -> None:
        """A backend without a queue that has missed a change is not in sync any more, and the log says so."""
        log = watch_log(self)
        relay = self.relay(self.backend(result(), result()), self.backend(reset, result()))
        found = await self.ask(relay, asking("CREATE USER me WITH PASSWORD 'secret'"))
        self.assertEqual(found.status, 200)
        await until(lambda: relay.senders[1].change_outcomes["missed"], "the end of the change")
        for _ in range(4):
            self.assertEqual(self.named(await self.ask(relay, asking("SHOW USERS"))), b"backend-0")
        found = await self.ask(relay, asking("SHOW USERS", more=b"&backend=backend-1"))
        self.assertEqual(found.header("X-Influxrelay-In-Sync"), b"false")
        self.assertIn(
            "has missed what another backend has executed: CREATE USER me WITH PASSWORD [REDACTED]", "\n".join(log)
        )

    async def test_log(self) -> None:
        """What a backend has refused, and slow queries, are logged without passwords; so is each request."""
        log = watch_log(self)
        refusal = Hold(result(FAILED))  # until the other one has executed it
        relay = self.relay(self.backend(result()), self.backend(refusal), access_log=True, slow_query=0.000001)
        await self.ask(relay, asking("CREATE USER me WITH PASSWORD 'secret'"))
        refusal.release()
        await until(lambda: relay.senders[1].change_outcomes["refused"], "the end of the change")
        text = "\n".join(log)
        self.assertIn("backend backend-1 has refused what another backend has executed", text)
        self.assertIn("CREATE USER me WITH PASSWORD [REDACTED]: no such thing", text)
        self.assertIn("a slow query took", text)
        self.assertIn("GET /query", text)
        self.assertNotIn("secret", text)
        self.assertEqual(relay.senders[0].change_outcomes["executed"], 1)

    async def test_consistency(self) -> None:
        """``consistency=all`` wants every backend to execute a change; a statement's error is a refusal."""
        rows = result(ROWS)
        for second, body in ((result(FAILED), FAILED), (rows, ROWS)):
            relay = self.relay(self.backend(rows), self.backend(second))
            found = await self.ask(relay, asking("SELECT v INTO n FROM m", more=b"&db=d&consistency=ALL"))
            self.assertEqual((found.status, found.body), (200, body))
        down = self.backend()
        await down.stop()
        found = await self.ask(self.relay(self.backend(result()), down, consistency="all"), asking("CREATE DATABASE d"))
        self.assertEqual(found.status, 503)
        self.assertIn(b"unable to execute the change at enough backends (backend-1: refused)", found.body)
        found = await self.ask(relay, asking("CREATE DATABASE d", more=b"&consistency=most"))
        self.assert_error(found, 400, 'invalid consistency level "most" (use any, one, quorum or all)')

    async def test_any(self) -> None:
        """With ``consistency=any`` a change is answered as soon as it is queued, unless a read stands behind it."""
        for buffer, journal in ((1, None), (0, JournalConfig(self.mktemp()))):
            down = self.backend(result())
            await down.stop()
            relay = self.relay(self.output(down, buffer_size_mb=buffer), journal=journal)
            found = await self.ask(relay, asking("CREATE DATABASE d", more=b"&consistency=any"))
            self.assertEqual((found.status, found.body), (200, RESULT))
            found = await self.ask(relay, asking("CREATE DATABASE d; SHOW DATABASES", more=b"&consistency=any"))
            self.assertEqual(found.status, 503)
            down.listen()
            await until(partial(relay.senders[0].change_outcomes.__getitem__, "executed"), "the change")
            self.assertEqual(len(down.requests), 1)

    async def test_dead_letter(self) -> None:
        """A change that a backend refuses after another has executed it is a dead letter, without passwords."""
        log = watch_log(self)
        hold = Hold(result(FAILED))
        late = self.backend(hold, result())
        relay = self.relay(*[self.output(each, buffer_size_mb=1) for each in (self.backend(result()), late)])
        await self.ask(relay, asking("CREATE USER me WITH PASSWORD 'secret'"))
        hold.release()
        sender = relay.senders[1]
        await until(sender.backlog.dead_letters, "the dead letter")
        (letter,) = sender.backlog.dead_letters()
        shown = str((summary("main", "1", letter), whole("main", "1", letter), letter, *log))
        self.assertIn("CREATE USER me WITH PASSWORD [REDACTED]", shown)
        self.assertIn("no such thing", shown)
        self.assertNotIn("secret", shown)
        self.assertEqual((await sender.resend(letter.write)).status, 200)
        self.assertIn(b"secret", late.requests[1].query)

    async def test_read_only(self) -> None:
        """``read-only`` refuses what changes something; reads and writes pass."""
        backend = self.backend(answer(204))
        relay = self.relay(backend, read_only=True)
        for q in ("DROP DATABASE d", "SELECT v INTO n FROM m", "KILL QUERY 1"):
            self.assert_error(await self.ask(relay, asking(q)), 403, "this listener is read-only (read-only)")
        self.assertEqual(backend.requests, [])
        self.assertEqual((await self.ask(relay, request())).status, 204)

    async def test_of_one_server(self) -> None:
        """What concerns one server needs its name, and a change must not have one."""
        backends = [self.backend(result()) for _ in range(2)]
        relay = self.relay(*backends)
        found = await self.ask(relay, asking("KILL QUERY 5; DROP DATABASE d"))
        message = "KILL QUERY concerns one server: choose it with backend=NAME in the query string"
        self.assert_error(found, 400, message)
        found = await self.ask(relay, asking("DROP SHARD 5", more=b"&backend=backend-1"))
        self.assertEqual((found.status, self.named(found)), (200, b"backend-1"))
        found = await self.ask(relay, asking("DROP DATABASE d", more=b"&backend=backend-1"))
        self.assertEqual(found.status, 400)
        self.assertEqual([len(each.requests) for each in backends], [0, 1])
