"""A process that runs tests for ``tools.run_tests``: names come in on standard input, outcomes go to standard output.

Each line is JSON: the names of tests, whether to measure them, and whether to measure the programs that they start;
answered by what :class:`Outcome` has. Tests make their files in a directory of this process's own, which is the working
directory.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TextIO

import attrs
from coverage import Coverage
from twisted.logger import globalLogPublisher, textFileLogObserver
from twisted.trial.reporter import TextReporter
from twisted.trial.runner import LoggedSuite, TestLoader

from testing.reactors import REACTORS

FOR_CHILDREN = "COVERAGE_PROCESS_CONFIG"  # is there if child processes are to measure what they run
PATIENCE = 900  # seconds after which tests are taken to hang; the process then shows where, and ends


@attrs.frozen
class Outcome:
    """What came of some tests.

    :ivar failed: how many failed, as trial counts them: a test can fail twice.
    :ivar report: trial's report on those that did not pass; empty if all did.
    :ivar seconds: how long they took.
    """

    passed: int
    failed: int
    skipped: int
    report: str
    seconds: float


def run(names: list[str]) -> Outcome:
    """Run the tests by these names."""
    began = time.monotonic()
    stream = io.StringIO()
    result = TextReporter(stream)
    LoggedSuite([TestLoader().loadByNames(names, recurse=True)]).run(result)
    result.done()
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skipped = len(result.skips) + len(result.expectedFailures)
    report = stream.getvalue() if failed or skipped else ""
    return Outcome(result.successes, failed, skipped, report, time.monotonic() - began)


@contextmanager
def unmeasured_children() -> Iterator[None]:
    """Let programs that are started meanwhile not measure themselves."""
    told = os.environ.pop(FOR_CHILDREN, None)
    yield
    if told is not None:
        os.environ[FOR_CHILDREN] = told


def serve(requests: TextIO, answers: TextIO, measured: Coverage | None) -> None:
    """Run what is asked for until nothing more is."""
    for line in requests:
        names, measure, measure_children = json.loads(line)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        with (
            measured.collect() if measured and measure else nullcontext(),
            nullcontext() if measure_children else unmeasured_children(),
        ):
            outcome = run(names)
        faulthandler.cancel_dump_traceback_later()
        if measured:
            measured.save()
        answers.write(json.dumps(attrs.asdict(outcome)) + "\n")
        answers.flush()


def main() -> None:
    """Measure what runs, keep what it prints and logs, and let no test touch the two pipes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where to work")
    parser.add_argument("--coverage", help="the file for what is measured; a suffix is added to its name")
    parser.add_argument("--reactor", default="uvloop", choices=REACTORS, help="the reactor to install")
    options = parser.parse_args()
    measured = Coverage(options.coverage, data_suffix=True) if options.coverage else None
    options.directory.mkdir()
    os.chdir(options.directory)
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    with open(os.devnull) as nothing, open("output", "w") as output, open("test.log", "w") as log:  # noqa: PTH123
        for stream, descriptor in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(stream.fileno(), descriptor)
        globalLogPublisher.addObserver(textFileLogObserver(log))
        REACTORS[options.reactor]()
        with measured.collect() if measured else nullcontext():
            pass  # what is imported before the first time would never be measured
        serve(requests, answers, measured)


if __name__ == "__main__":
    main()
