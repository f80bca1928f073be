"""Which backend of today is which of yesterday's."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.journal.registry import Registry


class RegistryTests(SynchronousTestCase):
    """Backends that are renamed, moved, swapped, removed, and return."""

    def setUp(self) -> None:
        """Register two."""
        self.registry = Registry()
        self.register(a=("a", "1"), b=("b", "2"))

    def register(self, **backends: tuple[str, str]) -> None:
        """Register backends by what stands for them."""
        self.registry.register({key: each for key, each in backends.items()})  # noqa: C416

    def ids(self, *names: str) -> list[int | None]:
        """Return the ids of backends by their names."""
        return [None if (each := self.registry.find(name)) is None else each.id for name in names]

    def test_new(self) -> None:
        """Each has an id of its own, by which it is found."""
        self.assertEqual(self.ids("a", "b", "c"), [1, 2, None])
        self.assertEqual([self.registry.id_of(each) for each in "abc"], [1, 2, None])
        self.assertEqual(
            (self.registry.active(), self.registry.name_of(2), self.registry.name_of(9)), ((1, 2), "b", "")
        )

    def test_renamed(self) -> None:
        """A name changes, and the id does not; two may exchange their names."""
        self.register(a=("x", "1"), b=("a", "2"))
        self.assertEqual(self.ids("x", "a", "b"), [1, 2, None])
        self.register(a=("a", "1"), b=("x", "2"))
        self.assertEqual(self.ids("a", "x"), [1, 2])

    def test_moved(self) -> None:
        """A location changes, and the id does not."""
        self.register(a=("a", "3"), b=("b", "2"))
        self.assertEqual(self.ids("a", "b"), [1, 2])

    def test_restarted(self) -> None:
        """A process that knows only the ledger finds each by its location, else by its name."""
        other = Registry(self.registry.backends)
        other.register({1: ("b", "1"), 2: ("x", "2"), 3: ("c", "3")})
        self.assertEqual([other.id_of(each) for each in (1, 2, 3)], [1, 2, 3])
        other = Registry(self.registry.backends)
        other.register({1: ("a", "9"), 2: ("b", "2")})
        self.assertEqual([other.id_of(each) for each in (1, 2)], [1, 2])

    def test_removed(self) -> None:
        """One that is removed is known still, and found again when it returns, by another name, too."""
        self.register(a=("a", "1"))
        self.assertEqual((self.registry.active(), self.registry.id_of("b"), self.ids("b")), ((1,), None, [2]))
        self.assertEqual(self.registry.returning({"a": "1", "again": "2", "c": "3"}, {"a": "a"}), {"again": 2})
        self.register(a=("a", "1"), new=("again", "2"))
        self.assertEqual((self.ids("again", "b"), self.registry.active()), ([2, None], (1, 2)))

    def test_name_is_taken(self) -> None:
        """One that is removed makes way for another one of its name, and for a third."""
        self.register(a=("a", "1"), x=("b", "8"))
        self.assertEqual(self.ids("b", "b (2)"), [2, None])  # it has moved
        self.register(a=("a", "1"))
        self.register(a=("b", "1"), y=("a", "9"))
        self.assertEqual((self.ids("b", "a", "b (8)"), self.registry.active()), ([1, 3, 2], (1, 3)))

    def test_forget(self) -> None:
        """One that is forgotten begins anew when it comes back."""
        self.register(a=("a", "1"))
        self.registry.forget("b")
        self.assertEqual(self.ids("b"), [None])
        self.assertEqual(self.registry.returning({"b": "2"}, {}), {})
