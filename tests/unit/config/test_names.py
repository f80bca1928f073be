"""Outputs that share a name."""

from __future__ import annotations

from influxrelay.config.diff import pair_outputs
from influxrelay.config.settings import HTTPListenerConfig
from testing.configuration import HTTP, UDP, ConfigTestCase


def outputs(kind: str, *pairs: tuple[str, str]) -> str:
    """Return tables of outputs with names and locations."""
    return "".join(f"[[{kind}.output]]\nname = '{name}'\nlocation = '{location}'\n" for name, location in pairs)


ONE, TWO, THREE = (f"http://10.0.0.{number}:8086/write" for number in (1, 2, 3))


class SharedNameTests(ConfigTestCase):
    """Names as a template may make them."""

    def listener(self, *pairs: tuple[str, str]) -> HTTPListenerConfig:
        """Load an HTTP listener with these outputs."""
        return self.load(HTTP + outputs("http", *pairs)).http[0]

    def names(self, *pairs: tuple[str, str]) -> list[str]:
        """Return the names that outputs get."""
        return [each.name for each in self.listener(*pairs).outputs]

    def test_address_tells_apart(self) -> None:
        """Outputs of one name get their addresses as suffixes, and others keep their names."""
        self.assertEqual(
            ["influx@10.0.0.1:8086", "other", "influx@10.0.0.2:8086"],
            self.names(("influx", ONE), ("other", THREE), ("influx", TWO)),
        )

    def test_stable(self) -> None:
        """The order of the outputs has no influence on their names, nor have those of other names."""
        before = self.names(("influx", ONE), ("influx", TWO))
        self.assertEqual(before[::-1], self.names(("influx", TWO), ("influx", ONE)))
        self.assertEqual(before, self.names(("influx", ONE), ("influx", TWO), ("influx", THREE))[:2])

    def test_numbers(self) -> None:
        """Outputs of one name and address are numbered, and no name that somebody else has is given away."""
        gateway = "http://gateway:8086"
        self.assertEqual(
            ["a@gateway:8086", "a@gateway:8086-3", "a@gateway:8086-2"],
            self.names(("a", f"{gateway}/one/write"), ("a", f"{gateway}/two/write"), ("a@gateway:8086-2", THREE)),
        )
        self.assertEqual([ONE, f"{ONE}-2"], self.names(("", ONE), ("", ONE)))

    def test_warnings(self) -> None:
        """Each new name is a warning with its place; a file without shared names has none."""
        config = self.load(
            HTTP
            + outputs("http", ("b", ONE), ("a", TWO))
            + UDP
            + outputs("udp", ("a", "10.0.0.1:8089"), ("b", "10.0.0.1:8089"), ("a", "10.0.0.2:8089"))
        )
        place = "relay.toml: udp[0].output"
        said = 'several outputs are named "a"; this one is called'
        self.assertEqual(
            (f'{place}[0].name: {said} "a@10.0.0.1:8089"', f'{place}[2].name: {said} "a@10.0.0.2:8089"'),
            config.warnings,
        )
        self.assertEqual((), self.load(HTTP + outputs("http", ("b", ONE), ("a", TWO))).warnings)

    def test_filters(self) -> None:
        """A filter that names outputs by their shared name holds for each of them."""
        text = HTTP + outputs("http", ("a", ONE), ("a", TWO), ("b", THREE))
        listener = self.load(f"{text}[[filter]]\noutputs = ['a']\ntag-expression = 'x'\n").http[0]
        self.assertEqual([1, 1, 0], [len(each.filters) for each in listener.outputs])

    def test_journal_finds_them(self) -> None:
        """A reload that adds, removes or reorders outputs of one name finds each backend by its location."""
        before = self.listener(("influx", ONE), ("influx", TWO))
        for pairs in (
            [("influx", TWO), ("influx", ONE)],
            [("influx", THREE), ("influx", TWO), ("influx", ONE)],
            [("influx", TWO)],
        ):
            after = self.listener(*pairs)
            for name, was in pair_outputs(before, after).items():
                now = next(each for each in after.outputs if each.name == name)
                self.assertEqual(now.location, was.location)
