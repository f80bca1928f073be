"""Print constraints that make pip install the oldest versions that ``pyproject.toml`` allows."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path


def constraints(dependencies: Iterable[str]) -> Iterator[str]:
    """Yield a constraint for each dependency, which has to name its oldest version."""
    for dependency in dependencies:
        found = re.match(r"([\w.-]+)(?:\[[\w,-]+\])? *>= *([\d.]+)", dependency)
        if found is None:
            raise ValueError(f"{dependency!r} in pyproject.toml does not begin with NAME>=VERSION")
        yield f"{found[1]}=={found[2]}"


if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    sys.stdout.writelines(f"{each}\n" for each in constraints(project["dependencies"]))
