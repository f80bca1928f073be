"""Environment variables in a configuration."""

from __future__ import annotations

from pathlib import Path

from influxrelay.config.loader import load
from influxrelay.core.errors import ConfigError
from testing.configuration import HTTP, OUTPUT, SECRET, ConfigTestCase, at


class EnvironmentTests(ConfigTestCase):
    """``"${NAME}"``."""

    ENVIRONMENT = {"TOKEN": SECRET, "HOST": "influx.example.net", "PORT": "8086", "EMPTY": "", "LINES": f"{SECRET}\n"}  # noqa: RUF012

    def test_any_string(self) -> None:
        """A variable may stand in any string, alone or with other text, in arrays and inline tables too."""
        Path("relay.toml").write_text(
            at("http://${HOST}:${PORT}")
            + "token = '${TOKEN}'\ntimeout = '${EMPTY}'\nname = 'a-${HOST}'\nendpoints = { ping = '/${HOST}' }\n"
            "[[filter]]\noutputs = ['a-${HOST}']\nmeasurement-expression = '^cpu$|x{2}'\n",
            encoding="utf-8",
        )
        (output,) = load("relay.toml", self.ENVIRONMENT).http[0].outputs
        self.assertEqual(
            ("a-influx.example.net", "http://influx.example.net:8086/write", SECRET, 10.0),
            (output.name, output.write_url, output.token, output.timeout),
        )
        self.assertEqual("http://influx.example.net:8086/influx.example.net", output.ping_url)
        self.assertEqual("^cpu$|x{2}", output.filters[0].measurement_expression)

    def test_literal(self) -> None:
        """Two dollar signs stand for one, and only before a variable: other dollar signs mean nothing."""
        Path("relay.toml").write_text(
            at("http://h/write") + "username = 'me'\npassword = '$${TOKEN}$$TOKEN$'", encoding="utf-8"
        )
        self.assertEqual("${TOKEN}$$TOKEN$", load("relay.toml", self.ENVIRONMENT).http[0].outputs[0].password)

    def test_not_set(self) -> None:
        """A variable that is not set is an error, which names it and the key."""
        for text, place in (
            (at("http://h/write") + "token = '${NO_SUCH}'", "http[0].output[0].token"),
            (f"{HTTP}{OUTPUT}name = 'b'\n[[filter]]\noutputs = ['b', '${{NO_SUCH}}']", "filter[0].outputs[1]"),
        ):
            Path("relay.toml").write_text(text, encoding="utf-8")
            line = str(self.assertRaises(ConfigError, load, "relay.toml", self.ENVIRONMENT))
            self.assertEqual(f"relay.toml: {place}: the environment variable NO_SUCH is not set", line)

    def test_tools(self) -> None:
        """A tool that has no use for secrets reads the file where their variables are not set."""
        text = at("http://h/write") + "name = '${NAME}'\ntoken = '${NO_SUCH}'"
        Path("relay.toml").write_text(text, encoding="utf-8")
        config = load("relay.toml", {"NAME": "b"}, secrets=False)
        self.assertEqual("b", config.http[0].outputs[0].name)
        self.assertRaises(ConfigError, load, "relay.toml", {}, secrets=False)

    def test_errors_show_what_is_written(self) -> None:
        """An error shows the variable's name instead of its value, whatever the key."""
        for key in ("name", "timeout", "ca-file", "client-certificate", "token", "token-file", "buffer-full", "gzip"):
            Path("relay.toml").write_text(at("http://h/write") + f"{key} = 'x${{LINES}}'", encoding="utf-8")
            line = str(self.assertRaises(ConfigError, load, "relay.toml", self.ENVIRONMENT))
            self.assertNotIn(SECRET, line)
            self.assertIn("a string" if key == "token" else "'x${LINES}'", line)
