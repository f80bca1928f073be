"""The list of modules in ``docs/architecture.rst``, made of the first lines of their docstrings.

``python -m tools.module_list`` brings the page up to date.
"""

from __future__ import annotations

import ast
import re
import textwrap
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent
PACKAGE = PROJECT / "influxrelay"
PAGE = PROJECT / "docs" / "architecture.rst"
WIDTH = 120  # characters of a line
_SECTION = re.compile(r"(?s)(\.\. begin of the module list\n).*?(\.\. end of the module list\n)")


def summary(path: Path) -> str:
    """Return the first sentence of a module's docstring, without the period at its end."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split()).removesuffix(".")


def layers() -> list[str]:
    """Return the folders and modules of the package in the order of the import contract, the lowest first."""
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (names,) = [each["layers"] for each in contracts["contracts"] if each["type"] == "layers"]
    return [name.strip("() ") for line in reversed(names) for name in line.split("|")]


def entries() -> list[str]:
    """Return the lines of the list."""
    lines: list[str] = []
    for name in layers():
        folder = PACKAGE / name
        if folder.is_dir():
            lines += ["", f"``{name}/``", f"    {summary(folder / '__init__.py')}.", ""]
            modules = sorted(path for path in folder.rglob("*.py") if path.name != "__init__.py")
            for path in modules:
                lines += textwrap.wrap(
                    f"- ``{path.relative_to(folder)}``: {summary(path)}",
                    WIDTH,
                    initial_indent="    ",
                    subsequent_indent="      ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
        elif folder.with_suffix(".py").exists():
            lines += ["", f"``{name}.py``", f"    {summary(folder.with_suffix('.py'))}."]
    return lines[1:]


def with_list(page: str) -> str:
    """Return a page with the list as it should be."""
    text = "\n".join(entries())
    found, count = _SECTION.subn(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", page)
    assert count == 1, f"{PAGE} has no place for the list"
    return found


if __name__ == "__main__":
    PAGE.write_text(with_list(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
