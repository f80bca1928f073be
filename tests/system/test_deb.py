"""The Debian package: built, checked, installed in a root of its own, started, upgraded under traffic, removed."""

from __future__ import annotations

import argparse
import atexit
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from influxrelay import __version__
from influxrelay.cli.arguments import make_parser
from influxrelay.config.loader import load
from influxrelay.config.settings import HTTPListenerConfig, UDPListenerConfig
from testing.manager import Backend, Manager, traffic
from testing.servers import PROJECT, ServerError, find_program, free_port

DEBIAN = PROJECT / "packaging" / "debian"
UPGRADE = "99.0"
CHECK = ("/usr/lib/influxrelay/bin/twistd", "influxrelay", "--config=/etc/influxrelay/relay.toml", "--check")
TEMPLATE_KEYS = {"Description", "Wants", "ExecStart", "StateDirectory", "WorkingDirectory"}
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def run(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    """Run a command to its end and return what it has printed; a failure is raised with that."""
    ended = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=PROJECT,
        env=environment,
        timeout=600,
        check=False,
    )
    if ended.returncode:
        raise AssertionError(f"{command} ended with {ended.returncode}:\n{ended.stdout}")
    return ended.stdout


def helps(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield what a command's ``--help`` says, and that of its subcommands."""
    yield parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from helps(each)


@cache
def build() -> Path:
    """Build the package, once for all tests, and return its path."""
    find_program("dh", "debhelper")
    find_program("dpkg-buildpackage", "dpkg-dev")
    directory = Path(tempfile.mkdtemp(prefix="influxrelay-deb-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
    run("tools/deb.sh", directory, environment={**environment, "VENV": sys.prefix})
    (package,) = directory.glob("*.deb")
    return package


@cache
def build_next() -> Path:
    """Make the package of a later version."""
    content = build().parent / "content"
    run("dpkg-deb", "--raw-extract", build(), content)
    control = content / "DEBIAN" / "control"
    control.write_text(re.sub("(?m)^Version: .*$", f"Version: {UPGRADE}", control.read_text()))
    (module,) = content.glob("usr/lib/influxrelay/lib/python3*/site-packages/influxrelay/__init__.py")
    module.write_text(module.read_text().replace(f'"{__version__}"', f'"{UPGRADE}"'))
    return Path(run("dpkg-deb", "-Zgzip", "-z1", "--build", content, build().parent).split("'")[3])


def _impossible(words: str) -> Exception:
    """Return what ends a test that cannot be run here: it is skipped with these words, except in CI, where it fails."""
    return ServerError(words) if os.environ.get("CI") else SkipTest(words)


class Root:
    """This machine's files, and what is changed above them in memory; nobody else sees it, and it ends with us."""

    _SCRIPT = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t tmpfs tmpfs "$1/root/tmp"
mount --rbind /proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
echo ready
read -r end
"""

    def __init__(self) -> None:
        if os.geteuid():
            raise _impossible("only root can install the package: sudo make test TESTS=tests.system.test_deb")
        self._place = Path(tempfile.mkdtemp(prefix="influxrelay-root-"))
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", self._SCRIPT, "sh", self._place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            self.close()
            raise _impossible("this machine does not let root mount file systems: the package cannot be installed")

    @property
    def path(self) -> Path:
        """The directory, for whoever reads and writes in it from outside."""
        return Path(f"/proc/{self._holder.pid}/root{self._place}/root")

    def command(self, *command: str | Path, user: str = "root") -> list[str]:
        """Return what runs a command inside."""
        enter = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "chroot", f"--userspec={user}:{user}"]
        return [*enter, f"{self._place}/root", *(str(part) for part in command)]

    def run(self, *command: str | Path) -> str:
        """Run a command inside, as root."""
        return run(*self.command(*command), environment=ENVIRONMENT)

    def close(self) -> None:
        """Let go of everything."""
        self._holder.communicate(b"\n")
        self._place.rmdir()


class PackageTests(SynchronousTestCase):
    """What is in the package."""

    def test_lintian(self) -> None:
        """Debian's checker has nothing to say of what is ours; the libraries beside it come as they are."""
        tags = re.findall("(?m)^[EW]: .*$", run(find_program("lintian", "lintian"), build()))
        self.assertEqual([tag for tag in tags if "/site-packages/" not in tag or "-packages/influxrelay" in tag], [])

    def test_exposure(self) -> None:
        """Systemd rates the exposure of the service, and of an instance of the template, 2.0 or lower, of 10."""
        analyze = find_program("systemd-analyze", "systemd")
        instance = Path(self.mktemp()).absolute() / "influxrelay@9101.service"
        instance.parent.mkdir()
        shutil.copy(DEBIAN / "influxrelay@.service", instance)
        for unit in (DEBIAN / "influxrelay.service", instance):
            found = run(analyze, "security", "--offline=true", "--threshold=20", "--no-pager", unit)
            self.assertRegex(found, f"Overall exposure level for {unit.name}: [01]\\.")

    def test_template(self) -> None:
        """An instance runs as the service does, but for its configuration, its directory and its sockets."""
        service, template = (
            [line for line in (DEBIAN / name).read_text().splitlines() if not line.startswith("#")]
            for name in ("influxrelay.service", "influxrelay@.service")
        )
        differing = [line for line in template if line not in service]
        self.assertEqual({line.partition("=")[0] for line in differing}, TEMPLATE_KEYS)
        for line in differing:
            self.assertTrue("%i" in line or line.startswith("Wants="), line)
        self.assertEqual(len(service), len(template))

    def test_manual(self) -> None:
        """The manual page has no mistakes in its markup, and names each command and option."""
        page = DEBIAN / "influxrelay.8"
        man = find_program("man", "man-db")
        self.assertEqual(run(man, "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page).count("warning"), 0)
        text = page.read_text().replace("\\-", "-")
        words = {
            word.strip() for help_ in helps(make_parser()) for word in re.findall(r"--[a-z]+|(?m:^    [a-z-]+)", help_)
        }
        self.assertGreater(len(words), 15)
        self.assertEqual([word for word in words if word not in text], [])

    def test_completion(self) -> None:
        """What bash, zsh and fish read is where they look for it."""
        content = Path(self.mktemp()).absolute()
        content.mkdir(parents=True)
        run("dpkg-deb", "--extract", build(), content)
        for name in (
            "bash-completion/completions/influxrelay",
            "zsh/vendor-completions/_influxrelay",
            "fish/vendor_completions.d/influxrelay.fish",
        ):
            self.assertIn("influxrelay", (content / "usr/share" / name).read_text())
        self.assertTrue((content / "usr/share/zsh/vendor-completions/_influxrelay").read_text().startswith("#compdef "))

    def test_configuration(self) -> None:
        """The configuration that is installed is correct, has its ports where the sockets are, and journals."""
        config = load(DEBIAN / "relay.toml")
        self.assertEqual(config.path, str(DEBIAN / "relay.toml"))
        self.assertIn(f"ListenStream={config.http[0].bind_addr}\n", (DEBIAN / "influxrelay.socket").read_text())
        self.assertIn(f"ListenDatagram={config.udp[0].bind_addr}\n", (DEBIAN / "influxrelay-udp.socket").read_text())
        listeners: list[HTTPListenerConfig | UDPListenerConfig] = [*config.http, *config.udp]
        for listener in listeners:
            assert listener.journal is not None
            self.assertTrue(listener.journal.directory.startswith("/var/lib/influxrelay/"))


class LifeTests(SynchronousTestCase):
    """The package's life on a machine."""

    def setUp(self) -> None:
        """Make the machine."""
        self.package, self.next = build(), build_next()
        self.root = Root()
        self.addCleanup(self.root.close)

    def install(self, package: Path) -> None:
        """Install or upgrade."""
        shutil.copy(package, self.root.path / "tmp")
        self.root.run("dpkg", "--install", f"/tmp/{package.name}")

    def configure(self, backend: Backend) -> tuple[Manager, int, int]:
        """Change ports and backends as an administrator does; return what starts the unit, and its ports."""
        unit = (self.root.path / "lib/systemd/system/influxrelay.service").read_text()
        settings = dict(re.findall(r"(?m)^(\w+)=(.*)$", unit))
        self.assertEqual((settings["Type"], settings["WorkingDirectory"]), ("notify", "/var/lib/influxrelay"))
        command = shlex.split(settings["ExecStart"])
        manager = Manager(
            self.root.command(*command, user=settings["User"]),
            Path(self.mktemp()).absolute(),
            environment=ENVIRONMENT,
        )
        self.addCleanup(manager.close)
        http, udp = manager.open(), manager.open(socket.SOCK_DGRAM)
        config = self.root.path / "etc/influxrelay/relay.toml"
        first, between, last = config.read_text().partition("[[udp]]")
        first, last = first.replace("9096", str(http)), last.replace("9096", str(udp))
        text = f"{first}{between}{last}".replace("9196", str(free_port()))
        for url in ("http://127.0.0.1:8086/write", "http://127.0.0.1:7086/write"):
            text = text.replace(url, backend.url)
        config.write_text(text)
        return manager, http, udp

    def test_life(self) -> None:
        """Installed, it runs as its user by the unit's command; upgraded under traffic, it loses and refuses nothing.

        Removed, its data stay; purged, nothing does.
        """
        root = self.root
        self.install(self.package)
        self.assertIn("/etc/influxrelay/relay.toml: correct", root.run(*CHECK))
        units = sorted((root.path / "lib/systemd/system").glob("influxrelay*"))
        self.assertEqual(len(units), 4)
        self.assertEqual(
            root.run("systemd-analyze", "verify", *(f"/lib/systemd/system/{unit.name}" for unit in units)), ""
        )
        passwd = (root.path / "etc/passwd").read_text()
        ids = re.search(r"(?m)^influxrelay:x:(\d+):(\d+):.*:/var/lib/influxrelay:/usr/sbin/nologin$", passwd)
        assert ids is not None, passwd
        for path, mode, uid in (("etc/influxrelay", 0o750, 0), ("var/lib/influxrelay", 0o700, int(ids[1]))):
            found = (root.path / path).stat()
            self.assertEqual((found.st_mode & 0o777, found.st_uid, found.st_gid), (mode, uid, int(ids[2])), path)
        self.assertEqual((root.path / "etc/influxrelay/relay.toml").stat().st_mode & 0o777, 0o640)

        backend = Backend()
        self.addCleanup(backend.server_close)
        self.addCleanup(backend.shutdown)
        manager, http, udp = self.configure(backend)
        manager.directory.mkdir()
        manager.start()
        assert manager.process is not None
        self.assertEqual(Path(f"/proc/{manager.process.pid}").stat().st_uid, int(ids[1]))
        self.assertNotIn("inherited", manager.tail())
        with traffic(http, udp) as found_by_clients:
            self.install(self.next)
            manager.stop()
            manager.start()
        self.assertEqual((found_by_clients["refused"], found_by_clients["failed"]), (0, []))
        for name, values in (("http", found_by_clients["acknowledged"]), ("udp", found_by_clients["datagrams"])):
            self.assertGreater(len(values), 10)
            self.assertEqual(backend.wait_for(name, values), set())
        self.assertEqual(root.run("influxrelay", "--version"), f"influxrelay {UPGRADE}\n")
        self.assertIn(backend.url, (root.path / "etc/influxrelay/relay.toml").read_text())
        self.assertIn("Nothing is wrong.", root.run("influxrelay", "queues"))
        manager.stop(signal.SIGTERM)
        self.assertIn(f"starting influxrelay {UPGRADE} on", manager.tail())
        self.assertNotIn("Traceback", manager.tail())

        root.run("dpkg", "--remove", "influxrelay")
        self.assertFalse((root.path / "usr/lib/influxrelay").exists())
        self.assertTrue((root.path / "etc/influxrelay/relay.toml").exists())
        self.assertTrue((root.path / "var/lib/influxrelay/http/journal.sqlite").exists())
        root.run("dpkg", "--purge", "influxrelay")
        left = [
            path
            for each in ("etc", "lib/systemd", "usr/bin", "usr/share", "usr/lib", "var/lib")
            for path in (root.path / each).rglob("*influxrelay*")
        ]
        self.assertEqual(left, [])
        self.assertNotIn("influxrelay", (root.path / "etc/passwd").read_text())
