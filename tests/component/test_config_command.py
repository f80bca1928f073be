"""``influxrelay config``."""

from __future__ import annotations

import json
import os
from contextlib import redirect_stderr, redirect_stdout
from errno import ENOSPC
from io import StringIO
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.cli import main
from testing.servers import PROJECT

FORK = str(PROJECT / "testing" / "configs" / "fork.toml")


class ConfigCommandTests(SynchronousTestCase):
    """Files are converted without a relay."""

    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        """Return the exit code and both outputs of a command."""
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
            code = main(["config", *arguments])
        return code, out.getvalue(), err.getvalue()

    def test_standard_output(self) -> None:
        """The new file goes to standard output, byte for byte, and what was changed to standard error."""
        path = Path(self.mktemp())
        text = '[[http]]\nbind-addr = ":9096"\t# a tab\n[[http.output]]\nlocation = "http://10.0.0.1:8086/write"\n'
        path.write_text(f'{text}timeout = ""\n')
        self.assertEqual(
            self.run_command(str(path)),
            (0, text, "influxrelay config: http[0].output[0].timeout: removed, since it asks for the default\n"),
        )
        path.write_text(text)
        self.assertEqual(self.run_command(str(path)), (0, text, "influxrelay config: nothing to change\n"))

    def test_file(self) -> None:
        """With --output a new file is written; an existing one is replaced with --yes only."""
        new = Path(self.mktemp())
        code, out, err = self.run_command(FORK, "--output", str(new))
        self.assertEqual((code, err), (0, ""))
        self.assertIn("Changed:\n  http[0].output[0].location: is now the URL for writes", out)
        self.assertIn('location = "http://10.0.0.1:8086/write"\n', new.read_text())
        new.write_text("mine")
        code, out, err = self.run_command(FORK, "--output", str(new))
        self.assertEqual((code, out), (2, ""))
        self.assertIn("exists already; add --yes to replace it", err)
        self.assertEqual(new.read_text(), "mine")
        self.assertEqual(self.run_command(FORK, "--output", str(new), "--yes")[0], 0)
        self.assertNotEqual(new.read_text(), "mine")
        self.assertEqual([each.name for each in new.parent.glob(f"{new.name}*")], [new.name])
        code, _, err = self.run_command(FORK, "--output", "/nowhere/new.toml")
        self.assertEqual((code, err), (2, "influxrelay config: /nowhere/new.toml: No such file or directory\n"))

    def test_interrupted_file(self) -> None:
        """A file that cannot be written whole leaves the one that it was to replace, and nothing beside it."""
        new = Path(self.mktemp())
        new.write_text("mine")
        new.chmod(0o600)
        link = new.with_name(f"{new.name}-link")
        link.symlink_to(new.name)
        full = OSError(ENOSPC, os.strerror(ENOSPC))
        with mock.patch.object(Path, "write_text", side_effect=full):
            code, _, err = self.run_command(FORK, "--output", str(link), "--yes")
        self.assertEqual((code, err), (2, f"influxrelay config: {link}: No space left on device\n"))
        self.assertEqual((new.read_text(), [each.name for each in new.parent.glob("*.new")]), ("mine", []))
        self.assertEqual(self.run_command(FORK, "--output", str(link), "--yes")[0], 0)
        self.assertIn("[[http]]", new.read_text())
        self.assertEqual((new.stat().st_mode & 0o777, link.is_symlink()), (0o600, True))

    def test_json(self) -> None:
        """For scripts there is one object with the text and the changes."""
        code, out, err = self.run_command(FORK, "--json")
        answer = json.loads(out)
        self.assertEqual((code, err, answer["output"], len(answer["changes"])), (0, "", "", 3))
        self.assertIn("# The dialect of the Veepee fork", answer["text"])

    def test_refused(self) -> None:
        """A file that the relay would refuse is refused in the same words."""
        code, out, err = self.run_command("/nowhere/relay.toml")
        self.assertEqual((code, out), (2, ""))
        self.assertEqual(
            err, "influxrelay config: /nowhere/relay.toml: cannot read the file: No such file or directory\n"
        )
