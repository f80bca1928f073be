"""Run tests under trial and coverage, child processes too, and end with the line that counts them."""

from __future__ import annotations

import sys

from coverage import Coverage
from coverage.exceptions import NoDataError
from twisted.trial.reporter import TestResult, TextReporter
from twisted.trial.runner import TestLoader, TrialRunner


def run(names: list[str]) -> TestResult:
    """Run the tests by these names and print what trial says of them."""
    suite = TestLoader().loadByNames(names, recurse=True)
    result = TrialRunner(TextReporter).run(suite)
    assert isinstance(result, TestResult)
    return result


def main(names: list[str]) -> int:
    """Return 0 if there are tests by these names and none of them fails."""
    measured = Coverage()
    measured.erase()
    with measured.collect():
        result = run(names)
    measured.save()

    combined = Coverage()
    combined.combine()
    combined.save()
    print()
    try:
        combined.report()
    except NoDataError:
        print("these tests run no code of influxrelay")

    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skipped = len(result.skips) + len(result.expectedFailures)
    summary = f"{result.successes} passed, {failed} failed"
    print()
    print(f"{summary}, {skipped} skipped" if skipped else summary)
    return 0 if result.successes and not failed and result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
