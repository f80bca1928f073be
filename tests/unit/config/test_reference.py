"""``etc/relay.toml`` shows every key, and its default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import tomlkit

from influxrelay.config import loader as config
from influxrelay.config import schema as config_keys
from influxrelay.config.settings import (
    Config,
    EpochConfig,
    FilterConfig,
    HTTPListenerConfig,
    HTTPOutputConfig,
    JournalConfig,
    ShardConfig,
    StreamConfig,
    TCPListenerConfig,
    UDPListenerConfig,
    UDPOutputConfig,
)
from testing.configuration import ConfigTestCase
from testing.servers import PROJECT

REFERENCE = PROJECT / "etc" / "relay.toml"
DEFAULT_KEY = re.compile(r"^# ([a-z_-]+) = (.+)$", re.MULTILINE)


class ReferenceTests(ConfigTestCase):
    """etc/relay.toml."""

    def test_loads_as_it_stands(self) -> None:
        """The reference is a configuration that works on one machine."""
        loaded = config.load(REFERENCE)
        self.assertEqual("tcp:9096:interface=127.0.0.1", loaded.http[0].endpoint)
        self.assertEqual(
            ["http://127.0.0.1:8086/write", "http://127.0.0.1:7086/write"],
            [o.write_url for o in loaded.http[0].outputs],
        )
        self.assertEqual(["127.0.0.1:9096"], [listener.bind_addr for listener in loaded.udp])

    def test_shown_defaults_are_the_defaults(self) -> None:
        """Every default that the reference shows is the one of the code: taking it as it is changes nothing."""
        text = REFERENCE.read_text(encoding="utf-8")
        Path("all.toml").write_text(DEFAULT_KEY.sub(r"\1 = \2", text), encoding="utf-8")
        self.assertEqual(attrs.evolve(config.load(REFERENCE), path="all.toml"), config.load("all.toml"))
        for table, key, value in self.shown_defaults(text):
            if table == "admin":
                continue  # its default is the reader's, for without the table there is no listener
            owner = OWNERS[table]
            name = config_keys.ATTRIBUTES.get(key, key.replace("-", "_"))
            if name.startswith("journal_"):
                name = name.removeprefix("journal_")
                owner = JournalConfig if name in attrs.fields_dict(JournalConfig) else StreamConfig
            default = {field.name: field.default for field in attrs.fields(owner)}.get(name)
            with self.subTest(f"{table}.{key}"):
                read = KEYS[table][key](value)
                if value in ("", {}, []):
                    self.assertIn(default, (None, "", ()))
                else:
                    self.assertIn(default, (value, None) if read is None else (read,))

    def test_every_key_is_there(self) -> None:
        """The reference shows every key that the code knows, and no other."""
        text = REFERENCE.read_text(encoding="utf-8")
        shown: dict[str, set[str]] = {table: set() for table in KEYS}
        for table, key, _ in self.shown_defaults(DEFAULT_KEY.sub(r"# \1 = \2", re.sub(r"(?m)^(?=[a-z])", "# ", text))):
            shown[table].add(key)
        tables = {"admin", "http", "udp", "tcp", "filter", "output", "shard", "epoch"}
        for table, keys in KEYS.items():
            self.assertEqual(keys.keys() - tables, shown[table] - tables)
        for key in config_keys.ENDPOINTS:
            self.assertIn(f"\n#     {key} ", text)

    def shown_defaults(self, text: str) -> list[tuple[str, str, Any]]:
        """Return the table, key and value of each line ``# key = value``."""
        table, found = "", []
        for line in text.splitlines():
            if line.startswith("["):
                table = line.strip("[]")
            elif match := DEFAULT_KEY.match(line):
                found.append((table, match[1], tomlkit.parse(f"{match[1]} = {match[2]}").unwrap()[match[1]]))
        return found


OWNERS: dict[str, Any] = {
    "": Config,
    "filter": FilterConfig,
    "http": HTTPListenerConfig,
    "http.output": HTTPOutputConfig,
    "http.shard": ShardConfig,
    "http.epoch": EpochConfig,
    "udp": UDPListenerConfig,
    "udp.output": UDPOutputConfig,
    "tcp": TCPListenerConfig,
    "tcp.output": HTTPOutputConfig,
}
KEYS = {
    "": config_keys.CONFIG,
    "admin": config_keys.ADMIN,
    "filter": config_keys.FILTER,
    "http": config_keys.HTTP,
    "http.output": config_keys.HTTP_OUTPUT,
    "http.shard": config_keys.HTTP_SHARD,
    "http.epoch": config_keys.HTTP_EPOCH,
    "udp": config_keys.UDP,
    "udp.output": config_keys.UDP_OUTPUT,
    "tcp": config_keys.TCP,
    "tcp.output": config_keys.TCP_OUTPUT,
}
