"""Medians, tables, goals and the picture."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from docutils.core import publish_doctree
from twisted.trial.unittest import SynchronousTestCase

from bench.goals import GOALS, Goal, show
from bench.picture import draw
from bench.report import Report
from bench.scenarios import RSS, scenarios

NAMES = ["influxrelay", "with a journal", "nginx mirror", "other", "before", "no relay"]


def make_report() -> Report:
    """Return a report with three rounds in some rows."""
    roles = {"relay": NAMES[0], "journal": NAMES[1], "mirror": NAMES[2], "peer": NAMES[3], "earlier": NAMES[4]}
    report = Report({"Machine": "fast"}, NAMES, roles)  # type: ignore[arg-type]
    for cpu in (9.0, 11.0, 400.0):
        report.add("64x1", "influxrelay", {"cpu": cpu, "writes/s": 80_000, "p50": 0.5, "others": 0.25})
    report.add("64x1", "nginx mirror", {"cpu": 22.0, "writes/s": 40_000, "p50": 1.5})
    report.add("64x1", "no relay", {"cpu": 7.0, "writes/s": 100_000, "p50": 0.1})
    report.add("64x1", "other", {})  # it failed
    report.add("udp", "influxrelay", {"udp lines/cpu": 9, "udp lines/cpu at 10000": 5, "udp lines/cpu at 40000": 8})
    report.add("udp", "before", {"udp lines/cpu": 6, "udp lines/cpu at 10000": 4})
    report.add(RSS, "influxrelay", {"rss": 64.0, "cpu": 1.0, "others": 0.0})
    return report


class ReportTests(SynchronousTestCase):
    """The tables."""

    def test_median(self) -> None:
        """The median of the rounds counts; what was not measured has none."""
        report = make_report()
        self.assertEqual(report.median("64x1", "influxrelay", "cpu"), 11.0)
        self.assertIsNone(report.median("64x1", "other", "cpu"))
        self.assertIsNone(report.median("1x1", "influxrelay", "cpu"))

    def test_memory_row(self) -> None:
        """Of the minute's run only the memory is kept."""
        report = make_report()
        self.assertEqual(report.median(RSS, "influxrelay", "rss"), 64.0)
        self.assertIsNone(report.median(RSS, "influxrelay", "cpu"))

    def test_cells(self) -> None:
        """A cell has the figure, and its ratio to ours; whoever has no figure in a table has no column."""
        text = make_report().show(rst=False)
        self.assertIn("CPU per write, microseconds\n\n", text)
        self.assertRegex(text, r"(?m)^64x1 +11 +22 \(2\.00\) +7 \(0\.64\)$")
        self.assertIn("0.25 cores in the worst measurement", text)

    def test_rst(self) -> None:
        """The tables are correct reStructuredText, troubles included."""
        report = make_report()
        report.troubles.append("64x1, round 1, other: ended with status 1")
        document = publish_doctree(report.show(rst=True), settings_overrides={"halt_level": 2, "report_level": 2})
        self.assertIn("What went wrong", document.astext())

    def test_file(self) -> None:
        """What was saved is loaded again."""
        report, file = make_report(), Path(self.mktemp())
        report.save(file)
        self.assertEqual(Report.load(file), report)


class GoalTests(SynchronousTestCase):
    """Ratios, and what they have to reach."""

    def test_rows(self) -> None:
        """Every goal is about a scenario that there is."""
        self.assertLessEqual({goal.row for goal in GOALS}, {scenario.name for scenario in scenarios(quick=False)})

    def test_verdicts(self) -> None:
        """A bound is reached from below, or from above where more is better."""
        less = Goal("64x1", "cpu", "relay", "mirror", 1.0, 0.6)
        more = Goal("64x1", "writes/s", "relay", "mirror", 1.3, 2.0, more=True)
        for goal, value, verdict in (
            (less, 0.6, "pass, aim reached"),
            (less, 1.0, "pass"),
            (less, 1.01, "FAIL"),
            (more, 2.0, "pass, aim reached"),
            (more, 1.3, "pass"),
            (more, 1.29, "FAIL"),
            (more, None, "not measured"),
        ):
            self.assertEqual(goal.verdict(value), verdict, (goal, value))

    def test_values(self) -> None:
        """Ours is divided by theirs; over UDP at the highest rate that both took; alone it stands for itself."""
        report = make_report()
        values = {(goal.row, goal.key, goal.ours): goal.value(report) for goal in GOALS}
        self.assertEqual(values["64x1", "cpu", "relay"], 0.5)
        self.assertEqual(values["64x1", "writes/s", "relay"], 2.0)
        self.assertEqual(values["udp", "udp lines/cpu", "relay"], 1.25)
        self.assertEqual(values[RSS, "rss", "relay"], 64.0)
        self.assertIsNone(values["1x1", "p50", "relay"])

    def test_show(self) -> None:
        """The table names what is compared, also where somebody took no part."""
        report = make_report()
        del report.roles["peer"]
        text = show(report)
        self.assertRegex(text, r"64x1: cpu, influxrelay / nginx mirror +<= 1 +<= 0\.6 +0\.50 +pass, aim reached")
        self.assertRegex(text, r"1x1: p50, influxrelay / \(peer\) .* n/a +not measured")


class PictureTests(SynchronousTestCase):
    """The picture."""

    def test_bars(self) -> None:
        """Each contender with a figure has a bar of the right length in each column; a backend alone has none."""
        root = ET.fromstring(draw(make_report()))
        space = "{http://www.w3.org/2000/svg}"
        bars = [(bar.get("class"), float(bar.get("width", ""))) for bar in root.iter(f"{space}rect")]
        self.assertEqual([kind for kind, _ in bars], ["ours", "ours", "other", "other"])
        widths = [width for _, width in bars]
        self.assertEqual(widths, [widths[0], widths[0] / 2, widths[0] / 2, widths[0]])
        words = {text.text for text in root.iter(f"{space}text")}
        self.assertLessEqual({"influxrelay", "nginx mirror", "80,000", "22"}, words)
        self.assertNotIn("no relay", words)
