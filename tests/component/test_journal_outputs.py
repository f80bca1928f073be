"""A journal for other outputs than before."""

from __future__ import annotations

from influxrelay.listeners.http import HTTPService
from testing.journal_child import numbers
from testing.journal_relay import JournalTestCase, line
from testing.scripted import ScriptedBackend, answer, until


class OutputTests(JournalTestCase):
    """The outputs change from one start to the next."""

    async def write_without(self, *outputs: tuple[str, ScriptedBackend], down: ScriptedBackend, first: int) -> None:
        """Write ten writes while one backend is down."""
        await down.stop()
        relay = self.start_named(*outputs)
        for number in range(first, first + 10):
            self.assertEqual(await self.write(relay, number), 204)
        await self.stop(relay)
        down.listen()

    def start_named(self, *outputs: tuple[str, ScriptedBackend]) -> HTTPService:
        """Start a relay with these outputs."""
        return self.start(*(self.output(backend, name) for name, backend in outputs))

    def depths(self) -> dict[str, tuple[bool, int]]:
        """Return for each backend whether it is active and how many writes wait for it."""
        with self.opened() as journal:
            return {depth.backend: (depth.active, depth.writes) for depth in journal.depths()}

    async def settle(self, relay: HTTPService, last: int, *backends: ScriptedBackend) -> None:
        """Write once more, wait for it everywhere, and stop."""
        self.assertEqual(await self.write(relay, last), 204)
        await until(lambda: all(last in numbers(backend) for backend in backends), "the last write")
        await self.stop(relay)

    async def test_renamed(self) -> None:
        """Another name at the same place: what waits goes on to it."""
        a, b = self.backend(), self.backend()
        await self.write_without(("a", a), ("b", b), down=b, first=1)
        await self.settle(self.start_named(("a", a), ("c", b)), 100, a, b)
        self.assertEqual(numbers(b), [*range(1, 11), 100])
        self.assertEqual(numbers(a), [*range(1, 11), 100])
        self.assertEqual(self.depths(), {"a": (True, 0), "c": (True, 0)})

    async def test_moved(self) -> None:
        """The same name at another place: what waits goes there."""
        a, b, c = self.backend(), self.backend(), self.backend()
        await self.write_without(("a", a), ("b", b), down=b, first=1)
        await self.settle(self.start_named(("a", a), ("b", c)), 100, a, c)
        self.assertEqual(numbers(c), [*range(1, 11), 100])
        self.assertEqual(numbers(b), [])

    async def test_reordered(self) -> None:
        """The order is of no concern."""
        a, b = self.backend(), self.backend()
        await self.write_without(("a", a), ("b", b), down=b, first=1)
        await self.settle(self.start_named(("b", b), ("a", a)), 100, a, b)
        self.assertEqual(numbers(b), [*range(1, 11), 100])
        self.assertEqual(numbers(a), [*range(1, 11), 100])

    async def test_removed(self) -> None:
        """What waited for one that is gone holds nothing back."""
        a, b = self.backend(), self.backend()
        await self.write_without(("a", a), ("b", b), down=b, first=1)
        (segment,) = self.directory.glob("*.log")
        relay = self.start_named(("a", a))
        await until(lambda: not segment.exists(), "the end of what waited")
        await self.settle(relay, 100, a)
        self.assertEqual(numbers(a), [*range(1, 11), 100])
        self.assertEqual(numbers(b), [])
        depths = self.depths()
        self.assertEqual(depths["a"], (True, 0))
        self.assertFalse(depths["b"][0])
        self.assertEqual(list(self.directory.glob("*.log")), [])

    async def test_removed_and_added_again(self) -> None:
        """One that was gone for a while gets the writes that come from now on, in order, and none twice."""
        a, b = self.backend(), self.backend()
        await self.write_without(("a", a), ("b", b), down=b, first=1)
        await self.settle(self.start_named(("a", a)), 50, a)
        await self.settle(self.start_named(("a", a), ("b", b)), 100, a, b)
        self.assertEqual(numbers(b)[-1], 100)
        self.assertEqual(numbers(b), sorted(set(numbers(b))))

    async def test_added(self) -> None:
        """A new one gets what comes from now on, not what waits for another."""
        a, b, c = self.backend(), self.backend(), self.backend()
        await self.write_without(("a", a), ("b", b), down=b, first=1)
        await self.settle(self.start_named(("c", c), ("a", a), ("b", b)), 100, a, b, c)
        self.assertEqual(numbers(b), [*range(1, 11), 100])
        self.assertEqual(numbers(c), [100])

    async def test_all_replaced(self) -> None:
        """No output is the same: nothing is sent to the wrong one."""
        a, b, c = self.backend(), self.backend(), self.backend()
        await self.write_without(("a", a), ("b", b), down=b, first=1)
        await self.settle(self.start_named(("c", c)), 100, c)
        self.assertEqual(numbers(c), [100])

    async def test_names_swapped(self) -> None:
        """Two outputs swap their names: what waits for a server goes to that server."""
        a, b = self.backend(), self.backend()
        await self.write_without(("a", a), ("b", b), down=b, first=1)
        await self.settle(self.start_named(("b", a), ("a", b)), 100, a, b)
        self.assertEqual(sorted(set(numbers(b))), [*range(1, 11), 100])

    async def test_dead_letters_of_a_renamed(self) -> None:
        """Dead letters move with the name."""
        a, b = self.backend(), self.backend(answer(500, b"partial write: no"))
        relay = self.start_named(("a", a), ("b", b))
        self.assertEqual(await self.write(relay, 1), 204)
        await until(lambda: numbers(b) == [1])
        await self.stop(relay)
        b.script.append(answer(204))
        b.script.popleft()
        await self.settle(self.start_named(("a", a), ("c", b)), 100, a, b)
        with self.opened() as journal:
            letters = [(letter.backend, letter.status, letter.write.body) for letter in journal.dead_letters()]
        self.assertEqual(letters, [("c", 500, line(1))])
