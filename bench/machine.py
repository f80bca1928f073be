"""On what and with what the figures were made."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.contenders import Contender, Relay
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


def _revision() -> str:
    git = ("git", "-C", str(PROJECT))
    commit = _output(*git, "rev-parse", "--short=12", "HEAD") if _succeeds(*git, "rev-parse", "HEAD") else ""
    return f" ({commit})" if commit else ""


def describe(contenders: list[Contender]) -> list[tuple[str, str]]:
    """Return pairs of what and which."""
    facts = [
        ("Date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("Machine", f"{_cpu()}, {os.cpu_count()} cores; load before the run {os.getloadavg()[0]:.2f}"),
        ("Kernel", f"{platform.system()} {platform.release()}"),
        ("influxrelay", f"{__version__}{_revision()}"),
        ("Python", platform.python_version()),
        *((name, version(name)) for name in ("Twisted", "treq")),
        ("nginx", _output(find_program("nginx", "nginx"), "-v").rpartition("/")[2]),
        ("wrk", _output(find_program("wrk", "wrk"), "-v").partition(" Copyright")[0].removeprefix("wrk ")),
        ("InfluxDB", _output(find_program("influxd", "influxdb"), "version").removeprefix("InfluxDB ")),
    ]
    for contender in contenders:
        if isinstance(contender, Relay) and contender.name not in ("influxrelay", "with a journal"):
            program, *options = shlex.split(contender.command)
            known = f", {_output(program, '--version')}" if _succeeds(program, "--version") else ""
            facts.append((contender.name, f"``{' '.join([Path(program).name, *options])}``{known}"))
    return facts
