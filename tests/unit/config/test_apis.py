"""Outputs for the generations of InfluxDB."""

from __future__ import annotations

from pathlib import Path

from testing.configuration import HTTP, ConfigTestCase, at

SERVER = "http://127.0.0.1:8086"
ORG = 'api = "v2"\norg = "o"\n'
V3 = 'api = "v3"\n'


class APITests(ConfigTestCase):
    """The keys ``api``, ``org`` and ``buckets``."""

    def test_defaults(self) -> None:
        """An output is for 1.x unless it says otherwise."""
        output = self.output(f"{SERVER}/write")
        self.assertEqual((output.api, output.org, output.buckets), ("v1", None, ()))

    def test_urls(self) -> None:
        """A server's address is enough for each API; the ping is where the server has it."""
        for location, more, write, ping in (
            (SERVER, "", "/write", "/ping"),
            (SERVER, ORG, "/api/v2/write", "/ping"),
            (f"{SERVER}/", V3, "/api/v3/write_lp", "/ping"),
            (f"{SERVER}/api/v2/write", ORG, "/api/v2/write", "/ping"),
            (f"{SERVER}/a/api/v3/write_lp", V3, "/a/api/v3/write_lp", "/a/ping"),
            (f"{SERVER}/influx/", ORG, "/influx/api/v2/write", "/influx/ping"),
            (f"{SERVER}/odd", V3, "/odd", "/ping"),
            (SERVER, f'{ORG}endpoints = {{ write = "w/x" }}', "/w/x", "/w/ping"),
        ):
            output = self.output(location, more)
            self.assertEqual((output.write_url, output.ping_url), (SERVER + write, SERVER + ping), location)
            self.assertEqual(output.query_url, (SERVER + ping).replace("ping", "query"))

    def test_buckets(self) -> None:
        """The table says what databases, with their retention policies, are called there."""
        output = self.output(SERVER, ORG + 'buckets = { "db/rp" = "b", db = "c" }')
        self.assertEqual(output.buckets, (("db/rp", "b"), ("db", "c")))

    def test_refused(self) -> None:
        """What does not go together is refused with the key, and what would."""
        for location, more, key, expected in (
            (SERVER, 'api = "v4"', "api", '"v1", "v2" or "v3"'),
            (SERVER, 'api = "v2"', "org", "missing"),
            (SERVER, 'org = "o"', "org", 'set without api = "v2"'),
            (SERVER, 'api = "v3"\norg = "o"', "org", 'set without api = "v2"'),
            (SERVER, 'buckets = { a = "b" }', "buckets", 'set without api = "v2" or "v3"'),
            (SERVER, V3 + 'buckets = "b"', "buckets", "found 'b'; allowed: a table"),
            (SERVER, V3 + "buckets = { a = 1 }", "buckets", "the name for 'a'"),
            (SERVER, V3 + 'buckets = { "/a" = "b" }', "buckets", "the key '/a'"),
            (SERVER, V3 + "buffer-size-mb = 1\ncreate-databases = true", "create-databases", "cannot be used"),
            (f"{SERVER}/write", V3, "location", 'which is for api = "v1"'),
            (f"{SERVER}/api/v2/write", "", "location", 'which is for api = "v2"'),
            (f"{SERVER}/api/v3/write_lp", ORG, "location", 'which is for api = "v3"'),
        ):
            Path("relay.toml").write_text(at(location) + more, encoding="utf-8")
            found = self.error()
            self.assertTrue(found.startswith(f"relay.toml: http[0].output[0].{key}: "), found)
            self.assertIn(expected, found)

    def test_udp(self) -> None:
        """An output of a UDP listener may be of any generation; its location has the database."""
        text = HTTP.replace("[[http]]", "[[udp]]") + f'[[udp.output]]\nlocation = "{SERVER}/api/v2/write?db=d"\n{ORG}'
        (output,) = self.load(text).udp[0].outputs
        self.assertEqual((getattr(output, "api", ""), getattr(output, "query", "")), ("v2", "db=d"))
