"""What is published: the source distribution, the wheel, and an installation of the wheel."""

from __future__ import annotations

import atexit
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from functools import cache
from pathlib import Path
from shutil import rmtree

from twisted.trial.unittest import SynchronousTestCase

import twisted
from influxrelay import __version__
from testing.servers import PROJECT

PLUGIN = "twisted/plugins/influxrelay_plugin.py"
CONFIG = """
[[http]]
name = "web"
bind-addr = "127.0.0.1:0"
output = [{ name = "one", location = "http://127.0.0.1:8086/write" }]
"""


def run(*command: str | Path, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without this checkout on Python's path."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=directory,
        env=environment,
        check=False,
    )


@cache
def build() -> Path:
    """Build both, once for all tests, and return the directory that they are in.

    A plugin cache lies about, as it does in every checkout that has been used.
    """
    directory = Path(tempfile.mkdtemp(prefix="influxrelay-package-"))
    atexit.register(rmtree, directory, ignore_errors=True)
    cache_file = PROJECT / "twisted" / "plugins" / "dropin.cache"
    if not cache_file.exists():
        cache_file.touch()
    isolation = ["--no-isolation"] if importlib.util.find_spec("hatchling") else []
    built = run(sys.executable, "-m", "build", *isolation, "--outdir", directory, PROJECT, directory=directory)
    if built.returncode:
        raise AssertionError(built.stdout + built.stderr)
    return directory


class PackageTests(SynchronousTestCase):
    """The distributions of this checkout."""

    def setUp(self) -> None:
        """Have them built."""
        self.directory = build()
        (self.sdist,) = self.directory.glob("*.tar.gz")
        (self.wheel,) = self.directory.glob("*.whl")

    def names(self, archive: Path) -> list[str]:
        """Return the names in an archive, without the source distribution's top directory."""
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                return wheel.namelist()
        with tarfile.open(archive) as sdist:
            return [name.partition("/")[2] for name in sdist.getnames()]

    def test_version(self) -> None:
        """Both are named after the package's version."""
        self.assertEqual(self.sdist.name, f"influxrelay-{__version__}.tar.gz")
        self.assertEqual(self.wheel.name, f"influxrelay-{__version__}-py3-none-any.whl")

    def test_both(self) -> None:
        """Both carry the plugin, every module, the type marker and the licence, and no leftovers of a run."""
        modules = {f"influxrelay/{path.name}" for path in (PROJECT / "influxrelay").glob("*.py")}
        for archive in (self.sdist, self.wheel):
            names = self.names(archive)
            self.assertLessEqual(modules | {PLUGIN, "influxrelay/py.typed"}, set(names), archive.name)
            self.assertTrue(any(name.endswith("LICENSE") for name in names), archive.name)
            leftovers = ("dropin.cache", ".pyc", "__pycache__", "_trial_temp", ".coverage", ".ruff_cache", ".venv")
            self.assertEqual([name for name in names if any(part in name for part in leftovers)], [], archive.name)
            self.assertEqual(len(names), len(set(names)), archive.name)

    def test_wheel(self) -> None:
        """The wheel carries the package, the plugin, its own description, and nothing else: no tests."""
        tops = {name.partition("/")[0] for name in self.names(self.wheel)}
        self.assertEqual(tops, {"influxrelay", "twisted", f"influxrelay-{__version__}.dist-info"})
        self.assertEqual([name for name in self.names(self.wheel) if name.startswith("twisted/")], [PLUGIN])

    def test_sdist(self) -> None:
        """The source distribution carries what its tests and its users need."""
        names = set(self.names(self.sdist))
        needed = {"pyproject.toml", "README.rst", "CONTRIBUTING.rst", "Makefile", "tests/system/test_package.py"}
        for folder in (".ci", "docs", "etc", "packaging", "tools"):
            paths = (path for path in (PROJECT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc")
            needed |= {str(path.relative_to(PROJECT)) for path in paths}
        self.assertGreater(len(needed), 50)
        self.assertLessEqual(needed, names)

    def test_installed(self) -> None:
        """Installed from the wheel, ``twistd influxrelay`` works from any working directory, with the plugin found."""
        place = self.directory / "venv"
        venv.create(place, with_pip=True, symlinks=True)
        python = place / "bin" / "python"
        installed = run(
            *(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", self.wheel),
            directory=self.directory,
        )
        self.assertEqual(installed.returncode, 0, installed.stderr)
        # The dependencies come from where this test's own are. A path here is not searched for other .pth files: an
        # editable installation of influxrelay there stays out of sight.
        (site,) = place.glob("lib/python*/site-packages")
        (site / "dependencies.pth").write_text(f"{Path(twisted.__file__).parent.parent}\n")
        elsewhere = self.directory / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "relay.toml").write_text(CONFIG)
        twistd = Path(sysconfig.get_path("scripts")) / "twistd"
        ended = run(python, twistd, "influxrelay", "--config", "relay.toml", "--check", directory=elsewhere)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        self.assertIn("relay.toml: correct\nhttp web: listens on 127.0.0.1:0, consistency one\n", ended.stdout)
        found = run(python, "-c", "import influxrelay; print(influxrelay.__file__)", directory=elsewhere)
        self.assertEqual(found.stdout.strip(), str(site / "influxrelay" / "__init__.py"))
        removed = run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "influxrelay", directory=self.directory)
        self.assertEqual(removed.returncode, 0, removed.stderr)
        self.assertEqual([path for path in site.rglob("*influxrelay*") if path.suffix != ".pyc"], [])
