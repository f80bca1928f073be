"""What an operator says that answers mean."""

from __future__ import annotations

from pathlib import Path

from influxrelay.config.settings import AnswerConfig
from testing.configuration import HTTP, ConfigTestCase, at

SERVER = "http://127.0.0.1:8086"
RETRY = AnswerConfig("retry", (range(404, 405),))


class AnswersTests(ConfigTestCase):
    """The key ``answers``."""

    def test_values(self) -> None:
        """A rule has statuses, a text, or both; statuses are single ones and classes."""
        output = self.output(
            SERVER,
            """answers = [
                { status = 404, means = "Retry" },
                { status = [300, "4xx"], text = "a|b", means = "dead-letter" },
                { text = "c", means = "stale" },
                { status = "", text = "c", means = "hold" },
            ]""",
        )
        self.assertEqual(
            output.answers,
            (
                RETRY,
                AnswerConfig("dead-letter", (range(300, 301), range(400, 500)), "a|b"),
                AnswerConfig("stale", (), "c"),
                AnswerConfig("hold", (), "c"),
            ),
        )

    def test_of_the_listener(self) -> None:
        """Those of a listener hold for all of its outputs, behind their own."""
        rules = 'answers = [{ status = 404, means = "retry" }]\n'
        own = AnswerConfig("hold", (), "x")
        more = f'answers = [{{ text = "x", means = "hold" }}]\n[[http.output]]\nlocation = "{SERVER}/b"'
        text = at(SERVER).replace("[[http.output]]", f"{rules}[[http.output]]")
        self.assertEqual([each.answers for each in self.load(text + more).http[0].outputs], [(own, RETRY), (RETRY,)])
        for kind in ("udp", "tcp"):
            head = HTTP.replace("http", kind) + rules
            text = f'{head}[[{kind}.output]]\nlocation = "{SERVER}/write?db=d"'
            (listener,) = self.load(text).listeners
            self.assertEqual([getattr(each, "answers", None) for each in listener.outputs], [(RETRY,)])

    def test_refused(self) -> None:
        """A rule that makes no sense is refused with its place and what is allowed."""
        statuses = 'a status from 300 to 599, a class ("3xx", "4xx", "5xx"), or an array of these'
        for rule, key, expected in (
            ('status = 204, means = "retry"', ".status", f"found 204; allowed: {statuses}"),
            ('status = "2xx", means = "retry"', ".status", f"found '2xx'; allowed: {statuses}"),
            ('status = [], means = "retry"', ".status", f"allowed: {statuses}"),
            ('status = [404, true], means = "retry"', ".status", f"allowed: {statuses}"),
            ('text = "(", means = "retry"', ".text", "missing ): (?i)(); allowed: a regular expression in RE2 syntax"),
            ('text = 1, means = "retry"', ".text", "found 1; allowed: a regular expression in RE2 syntax"),
            ("status = 404", ".means", 'missing; allowed: "retry", "dead-letter", "stale" or "hold"'),
            ('status = 404, means = ""', ".means", 'missing; allowed: "retry"'),
            ('status = 404, means = "drop"', ".means", 'allowed: "retry", "dead-letter", "stale" or "hold"'),
            ('means = "retry"', "", "it matches every answer; add a status, a text, or both"),
            ('code = 404, means = "retry"', ".code", "unknown key"),
        ):
            Path("relay.toml").write_text(at(SERVER) + f"answers = [{{ {rule} }}]", encoding="utf-8")
            found = self.error()
            self.assertTrue(found.startswith(f"relay.toml: http[0].output[0].answers[0]{key}: "), found)
            self.assertIn(expected, found)
