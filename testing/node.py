"""Clients that run on Node.js, with packages of npm."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

from testing.servers import find_program


@cache
def install(*packages: str) -> Path:
    """Return the directory of these packages, each ``name@version``; they are kept in the virtual environment."""
    directory = Path(sys.prefix) / "node" / "+".join(each.replace("/", "_") for each in packages)
    if not (directory / "installed").exists():
        directory.mkdir(parents=True, exist_ok=True)
        command = [find_program("npm", "npm"), "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save"]
        done = subprocess.run(
            [*command, "--prefix", str(directory), *packages],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"npm has not installed {packages}: {done.stderr}")
        (directory / "installed").touch()
    return directory / "node_modules"


def run(script: str, *packages: str) -> str:
    """Return what a script prints that may ``require`` these packages; fail where it fails."""
    done = subprocess.run(
        [find_program("node", "nodejs"), "-e", script],
        capture_output=True,
        text=True,
        timeout=120,
        env={"NODE_PATH": str(install(*packages)), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"the script has failed: {done.stderr}")
    return done.stdout
