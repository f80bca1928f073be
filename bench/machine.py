"""On what and with what the figures were made."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.contenders import Relay
from influxrelay import __version__
from testing.servers import PROJECT, find_program


def _output(*command: str) -> str:
    """Return the first line that a command prints, or nothing if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (done.stdout + done.stderr).splitlines()
    return lines[0].strip() if lines else ""


def _succeeds(*command: str) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=5, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _revision(root: Path) -> str:
    git = ("git", "-C", str(root))
    return _output(*git, "rev-parse", "--short=12", "HEAD") if _succeeds(*git, "rev-parse", "HEAD") else ""


def _packages() -> Iterable[tuple[str, str]]:
    for package in ("Twisted", "treq", "uvloop", "httptools"):
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue


def _filesystem(directory: str) -> str:
    """Return the type of the filesystem that the journals are on."""
    return _output("stat", "--file-system", "--format=%T", directory)


def describe(others: Iterable[Relay]) -> dict[str, str]:
    """Return what the results depend on; `others` are the relays given on the command line."""
    revision = _revision(PROJECT)
    facts = {
        "Date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "Machine": f"{_cpu()}, {os.cpu_count()} cores; load before the run {os.getloadavg()[0]:.2f}",
        "Kernel": f"{platform.system()} {platform.release()}; journals on {_filesystem(tempfile.gettempdir())}",
        "influxrelay": f"{__version__} ({revision})" if revision else __version__,
        "Python": platform.python_version(),
        **dict(_packages()),
        "nginx": _output(find_program("nginx", "nginx"), "-v").rpartition("/")[2],
        "HAProxy": _output(find_program("haproxy", "haproxy"), "-v").partition(" version ")[2].partition(" ")[0],
        "wrk": _output(find_program("wrk", "wrk"), "-v").partition(" Copyright")[0].removeprefix("wrk "),
        "InfluxDB": _output(find_program("influxd", "influxdb"), "version").removeprefix("InfluxDB "),
    }
    for relay in others:
        if relay.root is not None:
            facts[relay.name] = _revision(relay.root) or "another checkout"
        else:
            program, *options = shlex.split(relay.command)
            known = f", {_output(program, '--version')}" if _succeeds(program, "--version") else ""
            facts[relay.name] = f"``{' '.join([Path(program).name, *options])}``{known}"
    return facts
