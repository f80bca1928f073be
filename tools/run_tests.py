"""Run tests in several processes, measure their coverage, and end with the line that counts them.

The tests of a module are run by one process (``tools.test_worker``), class by class. ``_trial_temp.run`` keeps what the
processes have printed and logged, and the files that their tests made, until the next run; runs at the same time do not
meet. The reports on failures are kept there longer, until ``make clean``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest import TestCase, TestSuite

from coverage import Coverage
from coverage.exceptions import NoDataError
from twisted.trial.runner import TestLoader

from tools.test_worker import Outcome

EVERYTHING = ["tests"]
PLACE = Path("_trial_temp.run")
SIMULATION = "tests.simulation."
# Measuring would make these twice as long, and other tests run the same code; likewise the programs that they start.
UNMEASURED = (SIMULATION, "tests.system.test_cut_answers.")
UNMEASURED_CHILDREN = (
    *UNMEASURED,
    "tests.system.test_campaign.",
    "tests.system.test_changes.",
    "tests.system.test_failures.",
    "tests.system.test_frozen_disk.",
    "tests.system.test_picture.",
    "tests.system.test_picture_shards.",
    "tests.system.test_recovery.",
)
WAITING = ("tests.system.", "tests.component.")  # for servers, timers and other programs, longer than they compute


def cases(suite: TestSuite) -> Iterator[TestCase]:
    """Yield each test of a suite."""
    for each in suite:
        if isinstance(each, TestSuite):
            yield from cases(each)
        else:
            yield each


def classes(names: list[str]) -> dict[str, list[str]]:
    """Return the tests by these names, by their class; what cannot be loaded is one, too."""
    found: dict[str, list[str]] = {}
    for test in cases(TestLoader().loadByNames(names, recurse=True)):
        name, _, method = test.id().rpartition(".")
        found.setdefault(name if hasattr(test, method) else test.id(), []).append(test.id())
    return found


def in_order(found: Iterable[str]) -> tuple[deque[list[str]], deque[list[str]]]:
    """Return the modules' classes of tests that wait, and of those that compute, the longest first."""
    modules: dict[str, list[str]] = {}
    for name in found:
        modules.setdefault(name.rpartition(".")[0], []).append(name)
    waiting = [module for folder in WAITING for module in modules if module.startswith(folder)]
    computing = sorted(set(modules) - set(waiting), key=lambda module: (not module.startswith(SIMULATION), module))
    return deque(modules[each] for each in waiting), deque(modules[each] for each in computing)


def titled(name: str, outcome: Outcome) -> str:
    """Return what is shown of a class whose tests did not all pass."""
    return f"\n{name}\n{outcome.report}\n"


class Run:
    """Several processes that run classes of tests, until all have been run.

    One half of the processes begins with the tests that wait, the other one with those that compute.

    :param place: a directory for all their files.
    :ivar outcomes: what came of each class.
    :ivar failures: the file to which reports on failures are added at once; it stays when there are other runs.
    """

    def __init__(self, found: dict[str, list[str]], place: Path, *, coverage: bool) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.failures = PLACE / f"failures-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        self._place = place
        self._options = [f"--coverage={place / '.coverage'}"] if coverage else []
        self._numbers = itertools.count(1)
        self._found = found
        self._queues = in_order(found)
        self._lock = threading.Lock()

    def run(self, processes: int | None = None) -> None:
        """Return when all have been run."""
        processes = processes or len(os.sched_getaffinity(0)) * (2 if self._queues[0] else 1)
        processes = min(processes, sum(map(len, self._queues)))
        threads = [
            threading.Thread(target=self._work, args=self._queues[:: 1 - 2 * (number % 2)], daemon=True)
            for number in range(processes)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _take(self, *queues: deque[list[str]]) -> Iterator[str]:
        """Yield what one process is to run: of a module all, for its tests may share what takes long to make."""
        while True:
            with self._lock:
                queue = next(filter(None, queues), None)
                module = queue.popleft() if queue else None
            if module is None:
                return
            yield from module

    def _work(self, *queues: deque[list[str]]) -> None:
        names = self._take(*queues)
        for first in names:
            name: str | None = first
            with self._lock:
                place = self._place / str(next(self._numbers))
            command = [sys.executable, "-m", "tools.test_worker", str(place), *self._options]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
                while name:
                    self._note(name, self._ask(worker, name, place))
                    if worker.poll() is not None:
                        break
                    name = next(names, None)

    def _ask(self, worker: subprocess.Popen[str], name: str, place: Path) -> Outcome:
        assert worker.stdin is not None
        assert worker.stdout is not None
        began = time.monotonic()
        tests = self._found[name]
        measured = (not name.startswith(UNMEASURED), not name.startswith(UNMEASURED_CHILDREN))
        worker.stdin.write(json.dumps([tests, *measured]) + "\n")
        worker.stdin.flush()
        answer = worker.stdout.readline()
        if answer:
            return Outcome(**json.loads(answer))
        report = f"The process that ran these tests ended with status {worker.wait()}. It said:\n"
        report += (place / "output").read_text(errors="replace")[-10_000:]
        return Outcome(0, len(tests), 0, report, time.monotonic() - began)

    def _note(self, name: str, outcome: Outcome) -> None:
        with self._lock:
            self.outcomes[name] = outcome
            if outcome.failed:
                with self.failures.open("a", encoding="utf-8") as file:
                    file.write(titled(name, outcome))
            verdict = "FAILED" if outcome.failed else "ok"
            print(f"{outcome.seconds:7.1f} s  {outcome.passed:4} passed  {verdict:6}  {name}", flush=True)


def make_place() -> Path:
    """Make a directory for this run, and remove those of runs that have ended."""
    PLACE.mkdir(exist_ok=True)
    for each in PLACE.iterdir():
        if each.is_dir() and not Path("/proc", each.name).exists():
            shutil.rmtree(each, ignore_errors=True)
    place = PLACE / str(os.getpid())
    place.mkdir()
    return place.absolute()


def report_coverage(place: Path, *, whole: bool) -> bool:
    """Combine what the processes have measured, print it, and say whether it is enough for the whole of the tests."""
    combined = Coverage()
    combined.combine([str(place)])
    combined.save()
    try:
        covered = combined.report()
    except NoDataError:
        print("these tests run no code of influxrelay")
        covered = 0.0
    floor = combined.get_option("report:fail_under")
    assert isinstance(floor, float)
    if not whole or covered >= floor:
        return True
    print(f"{covered:.1f} % are covered; pyproject.toml asks for {floor} %")
    return False


def main(arguments: list[str]) -> int:
    """Return 0 if there are tests by these names, none of them fails, and the whole of them covers enough."""
    parser = argparse.ArgumentParser(prog="run_tests", description=__doc__)
    parser.add_argument("names", nargs="*", default=EVERYTHING, help="modules, classes or methods (default: all)")
    parser.add_argument("--processes", type=int, help="default: one for each core, or two if there are tests that wait")
    parser.add_argument("--beside", default="true", metavar="COMMAND", help="run this, too; it must not fail either")
    parser.add_argument("--coverage", action="store_true", help="measure coverage")
    options = parser.parse_args(arguments)

    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each child process compiles what it imports
    place = make_place()
    beside = subprocess.Popen(shlex.split(options.beside))
    found = classes(options.names)
    run = Run(found, place, coverage=options.coverage)
    run.run(options.processes)
    print("".join(titled(name, outcome) for name, outcome in run.outcomes.items() if outcome.report))
    enough = not options.coverage or report_coverage(place, whole=options.names == EVERYTHING)
    if beside.wait():
        print(f"\n`{options.beside}` has failed, see above")
        enough = False
    print()

    passed, failed, skipped = (
        sum(getattr(each, kind) for each in run.outcomes.values()) for kind in ("passed", "failed", "skipped")
    )
    if failed:
        print(f"the reports on failures are kept in {run.failures}")
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 0 if passed and not failed and enough else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
