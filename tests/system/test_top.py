"""``influxrelay top`` at a real terminal, beside a real relay."""

from __future__ import annotations

import json
import signal
import tempfile
import termios
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from testing.servers import LOOPBACK, Relay, free_port, send
from testing.terminal import INFLUXRELAY, Terminal


class TopTests(SynchronousTestCase):
    """The command."""

    def setUp(self) -> None:
        """Start a relay whose backends are down."""
        directory = tempfile.TemporaryDirectory(prefix="top-")
        self.addCleanup(directory.cleanup)
        self.port = port = free_port()
        outputs = ", ".join(
            f'{{ name = "{name}", location = "http://{LOOPBACK}:{free_port()}/write" }}' for name in ("one", "two")
        )
        config = (
            f'[[http]]\nname = "metrics"\nbind-addr = "{LOOPBACK}:{port}"\nconsistency = "any"\n'
            f'journal = "{directory.name}/journal"\noutput = [{outputs}]\n'
        )
        self.relay = Relay(Path(directory.name) / "relay", config, port)
        self.relay.start()
        self.addCleanup(self.relay.stop)

    def write(self) -> None:
        """Write a line."""
        self.assertEqual(send("POST", f"{self.relay.url}/write?db=db", b"m v=1")[0], 204)

    def top(self, *words: str, piped: bool = False, **environment: str) -> Terminal:
        """Start the command."""
        command = [*INFLUXRELAY, "top", "--config", str(self.relay.config), *words]
        terminal = Terminal(*command, piped=piped, environment=environment)
        self.addCleanup(terminal.close)
        return terminal

    def test_life(self) -> None:
        """A person sees troubles come, the relay die and come back, and q leaves the terminal as it was."""
        terminal = self.top()
        before = termios.tcgetattr(terminal.file)
        terminal.see(f"metrics ({LOOPBACK}:{self.port}): takes writes", "one", "q quits")
        self.write()
        terminal.see("2 things to look at", "metrics/two: takes no writes since", "1 write kept for it")
        self.assertIn("red", terminal.colors())
        self.assertEqual((terminal.lines[23][:7], "influxrelay" in terminal.lines[0]), ("q quits", True))
        terminal.press("\x1b[B" * 3)
        terminal.resize(80, 14)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.see("more lines: arrow keys")
        terminal.press(" ")
        end = "Warnings and errors in the log", "the ping of backend"  # the more failures, the lower is the heading
        terminal.wait_for(lambda: any(each in terminal.text for each in end), "the log")
        terminal.resize(80, 24)
        terminal.process.send_signal(signal.SIGWINCH)
        self.relay.kill()
        terminal.see("No answer for", "trying again: no relay answers at", "two")
        self.relay.start()
        terminal.see("The relay was restarted at 20", "1 write")
        terminal.resize(60, 12)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.wait_for(lambda: terminal.lines[11].startswith("q quits"), "the smaller screen")
        terminal.press("q")
        self.assertEqual(terminal.end()[0], 0)
        self.assertTrue(terminal.written.rstrip().endswith(b"\x1b[?25h\x1b[?1049l"), terminal.written[-100:])
        self.assertEqual(termios.tcgetattr(terminal.file)[:4], before[:4])

    def test_ends(self) -> None:
        """Ctrl-C and SIGTERM leave the terminal as it was, too."""
        for act, code in (
            (lambda terminal: terminal.press("\x03"), 130),
            (lambda terminal: terminal.process.send_signal(signal.SIGTERM), 143),
        ):
            terminal = self.top()
            terminal.see("q quits")
            act(terminal)
            self.assertEqual(terminal.end()[0], code)
            self.assertIn(b"\x1b[?1049l", terminal.written)
            self.assertTrue(termios.tcgetattr(terminal.file)[3] & termios.ECHO)
            self.assertNotIn(b"Traceback", terminal.written)

    def test_no_color(self) -> None:
        """With NO_COLOR there are no colours."""
        terminal = self.top(NO_COLOR="1")
        terminal.see("2 things to look at")
        self.assertEqual(terminal.colors(), set())

    def test_once(self) -> None:
        """Piped it prints once, with --json as JSON, and without a relay one line says so."""
        code, out = self.top(piped=True).end()
        self.assertEqual((code, "\x1b" in out), (0, False))
        self.assertIn("metrics (", out)
        code, out = self.top("--json", "--listener", "metrics").end()
        self.assertEqual(code, 0)
        code, out = self.top("--json", piped=True).end()
        self.assertEqual([each["backend"] for each in json.loads(out)["queues"]], ["one", "two"])
        for words, line in ((["--listener", "x"], "there is no listener x; there is: metrics"), ([], "no relay")):
            if not words:
                self.relay.kill()
            terminal = self.top(*words)
            self.assertEqual(terminal.end()[0], 2)
            self.assertIn(f"influxrelay top: {line}", terminal.text)
