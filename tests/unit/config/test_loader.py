"""The configuration: what each dialect means, and the one line that refuses anything else."""

from __future__ import annotations

import os
import re
import string
from pathlib import Path
from typing import Any

import attrs
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.config import loader as config
from influxrelay.config import schema as config_keys
from influxrelay.config.durations import parse_duration
from influxrelay.config.settings import (
    Config,
    FilterConfig,
    HTTPListenerConfig,
    HTTPOutputConfig,
    JournalConfig,
    TCPListenerConfig,
    UDPListenerConfig,
    UDPOutputConfig,
)
from testing.certificates import make_pem
from testing.configuration import HTTP, OUTPUT, SECRET, UDP, UDP_OUTPUT, ConfigTestCase, at
from testing.servers import PROJECT

CONFIGS = PROJECT / "testing" / "configs"
REFERENCE = PROJECT / "etc" / "relay.toml"
DEFAULT_KEY = re.compile(r"^# ([a-z_-]+) = (.+)$", re.MULTILINE)

WEB_OUTPUT = '[[udp.output]]\nlocation = "http://127.0.0.1:8086/write?db=telegraf"\n'
JOURNAL = 'journal = "d"\n'
BUFFER = "buffer-size-mb = 1\n"
FILTER = f"{HTTP}{OUTPUT}name = 'b'\n[[filter]]\noutputs = ['b']\n"
L, B, U, V = "http[0]", "http[0].output[0]", "udp[0]", "udp[0].output[0]"


def udp_at(location: str) -> str:
    """Return a UDP listener with one output at a location."""
    return f'{UDP}[[udp.output]]\nlocation = "{location}"\n'


def bound(address: str, more: str = "") -> str:
    """Return an HTTP listener at an address."""
    return f'[[http]]\nbind-addr = "{address}"\n{more}\n{OUTPUT}'


# A file, the path of the key that the error names, and two phrases of the error: what is wrong and what is allowed.
BROKEN: list[tuple[str, str, str, str]] = [
    # The file and its tables
    ("", "", "no listener", "[[http]], [[udp]] or [[tcp]]"),
    ("tcp = 5", "tcp", "5", "an array of tables"),
    ("http = []", "", "no listener", "[[http]], [[udp]] or [[tcp]]"),
    ("a = ", "", "not valid TOML: Unexpected character: '\\x00' at line 1 col", ""),
    ("a = 1\na = 2", "", 'not valid TOML: Key "a" already exists', ""),
    ("[http]\nname = 'a'", "http", "a table", "an array of tables"),
    ("udp = 7", "udp", "7", "an array of tables"),
    ("http = [1]", "http", "an array", "an array of tables"),
    ("verbose = true", "verbose", "unknown key", "shutdown-timeout, admin-socket, admin, http, udp"),
    ("htpp = []", "htpp", 'did you mean "http"', "http"),
    ('"a b.c" = 1', "'a b.c'", "unknown key", "http"),
    (f"{HTTP}ouput = []", f"{L}.ouput", 'did you mean "output"', "bind-addr"),
    (f"{HTTP}bind_addr = ':1'\n{OUTPUT}", f"{L}.bind_addr", 'did you mean "bind-addr"', "bind-addr"),
    (f"{HTTP}{OUTPUT}Timeout = '1s'", f"{B}.Timeout", 'did you mean "timeout"', "location"),
    (f"{HTTP}{OUTPUT}mtu = 5", f"{B}.mtu", "unknown key", "location"),
    (f"{UDP}{UDP_OUTPUT}timeout = '1s'", f"{V}.timeout", "unknown key", "name, location, mtu"),
    (f"{UDP}{WEB_OUTPUT}mtu = 5", f"{V}.mtu", "unknown key", "timeout"),
    (f"{HTTP}{OUTPUT}endpoints = {{ wirte = '/w' }}", f"{B}.endpoints.wirte", 'did you mean "write"', "ping"),
    (f"{HTTP}{OUTPUT}endpoints = '/write'", f"{B}.endpoints", "'/write'", "a table"),
    (f"{HTTP}[http.output]\nlocation = 'x'", f"{L}.output", "a table", "an array of tables"),
    (HTTP, f"{L}.output", "no output", "at least one"),
    (f"{UDP}output = []", f"{U}.output", "no output", "at least one"),
    # Filters
    (f"{HTTP}{OUTPUT}filter = 1", f"{B}.filter", "unknown key", "location"),
    (f"{HTTP}{OUTPUT}[filter]\noutputs = ['a']", "filter", "a table", "an array of tables"),
    (f"{HTTP}{OUTPUT}[[filter]]\ntag-expression = 'a'", "filter[0].outputs", "missing", "an array of names"),
    (f"{HTTP}{OUTPUT}[[filter]]\noutputs = []", "filter[0].outputs", "an array", "at least one"),
    (f"{HTTP}{OUTPUT}[[filter]]\noutputs = ['']", "filter[0].outputs", "an array", "at least one"),
    (f"{HTTP}{OUTPUT}[[filter]]\noutputs = 'b'", "filter[0].outputs", "'b'", "an array of names"),
    (
        f"{HTTP}{OUTPUT}name = 'b'\n[[filter]]\noutputs = ['b', 'c']",
        "filter[0].outputs[1]",
        "no output is named 'c'",
        "allowed: b",
    ),
    (f"{FILTER}tag-expression = 5", "filter[0].tag-expression", "5", "a regular expression in RE2 syntax"),
    (f"{FILTER}tag-expression = '('", "filter[0].tag-expression", "'(' (missing ): ()", "in RE2 syntax"),
    (
        f"{FILTER}tag-expression = '(?=a)'",
        "filter[0].tag-expression",
        "'(?=a)' (invalid perl operator: (?=)",
        "RE2 syntax",
    ),
    (
        f"{FILTER}measurement-expression = '.{{1000}}'",
        "filter[0].measurement-expression",
        "'.{1000}' (it compiles to 8004 instructions, the limit is 5000)",
        "in RE2 syntax",
    ),
    (f"{FILTER}measurement-expresion = 'a'", "filter[0].measurement-expresion", "did you mean", "tag-expression"),
    # Queues
    (f"{HTTP}{OUTPUT}buffer-size-mb = -1", f"{B}.buffer-size-mb", "-1", "an integer from 0"),
    (f"{HTTP}{OUTPUT}buffer-size-mb = '1GB'", f"{B}.buffer-size-mb", "'1GB'", "an integer from 0"),
    (
        f"{HTTP}{OUTPUT}buffer-full = 'reject'",
        f"{B}.buffer-full",
        "set without buffer-size-mb",
        "buffer-size-mb = MEGABYTES",
    ),
    (f"{HTTP}{OUTPUT}{BUFFER}buffer-full = 'drop'", f"{B}.buffer-full", "'drop'", '"reject" or "drop-oldest"'),
    (f"{UDP}{UDP_OUTPUT}buffer-size-mb = 8", f"{V}.buffer-size-mb", "unknown key", "name, location, mtu"),
    (f"{HTTP}{OUTPUT}create-databases = 1", f"{B}.create-databases", "1", "true or false"),
    (
        f"{HTTP}{OUTPUT}create-databases = true",
        f"{B}.create-databases",
        "needs a queue",
        "add a journal or a buffer",
    ),
    (
        f"{HTTP}{OUTPUT}{BUFFER}{OUTPUT}name = 'b'\ncreate-databases = true\nbuffer-size-mb = 0",
        "http[0].output[1].create-databases",
        "needs a queue",
        "a buffer-size-mb above 0",
    ),
    (f"{UDP}{WEB_OUTPUT}create-databases = true", f"{V}.create-databases", "needs a queue", "set it to false"),
    (f"journal = 'd'\n{HTTP}{OUTPUT}", "journal", "unknown key", "shutdown-timeout, admin-socket"),
    (f"{HTTP}{OUTPUT}journal = 'd'", f"{B}.journal", "unknown key", "buffer-size-mb"),
    (f"{HTTP}journal = true\n{OUTPUT}", f"{L}.journal", "true", "a string"),
    (f"{HTTP}journal-max-mb = 1\n{OUTPUT}", f"{L}.journal-max-mb", "set without journal", 'journal = "DIRECTORY"'),
    (f"{UDP}journal-sync = 'full'\n{WEB_OUTPUT}", f"{U}.journal-sync", "set without journal", "or remove it"),
    (f"{HTTP}{JOURNAL}journal-max-mb = -1\n{OUTPUT}", f"{L}.journal-max-mb", "-1", "from 1"),
    (f"{HTTP}{JOURNAL}journal-max-mb = '1GB'\n{OUTPUT}", f"{L}.journal-max-mb", "'1GB'", "0 for the default"),
    (f"{HTTP}{JOURNAL}journal-max-age = '7d'\n{OUTPUT}", f"{L}.journal-max-age", "'7d'", "a duration above 0"),
    (f"{HTTP}{JOURNAL}journal-max-age = '0'\n{OUTPUT}", f"{L}.journal-max-age", "'0'", "a duration above 0"),
    (f"{HTTP}{JOURNAL}journal-full = 'drop'\n{OUTPUT}", f"{L}.journal-full", "'drop'", '"reject" or "drop-oldest"'),
    (f"{HTTP}{JOURNAL}journal-sync = 'off'\n{OUTPUT}", f"{L}.journal-sync", "'off'", '"normal" or "full"'),
    (f"{HTTP}{JOURNAL}journal-on-error = 503\n{OUTPUT}", f"{L}.journal-on-error", "503", '"relay" or "refuse"'),
    (f"{HTTP}{JOURNAL}journal-size = 1\n{OUTPUT}", f"{L}.journal-size", 'did you mean "journal', "journal-max-mb"),
    (f"{UDP}{JOURNAL}{UDP_OUTPUT}", f"{V}.location", "127.0.0.1:8089", "a URL with a database"),
    (
        f"{UDP}{JOURNAL}{WEB_OUTPUT}[[udp.output]]\nlocation = 'http://h/write?db={SECRET}'",
        "udp[0].output[1].location",
        "its query differs from udp[0].output[0]'s",
        "the same query",
    ),
    (
        f"{HTTP}journal = 'x/../d'\n{OUTPUT}{UDP}{JOURNAL}{WEB_OUTPUT}",
        "udp[0].journal",
        'duplicate journal "d" (also http[0])',
        "a journal of its own",
    ),
    (f"{HTTP}consistency = 'most'\n{OUTPUT}", f"{L}.consistency", "'most'", '"any", "one", "quorum" or "all"'),
    (f"{HTTP}consistency = ['one']\n{OUTPUT}", f"{L}.consistency", "an array", '"one"'),
    (f"admin-socket = 7\n{HTTP}{OUTPUT}", "admin-socket", "7", "a string"),
    (f"admin = 7\n{HTTP}{OUTPUT}", "admin", "7", "a table"),
    (f"[admin]\nbind = ':1'\n{HTTP}{OUTPUT}", "admin.bind", "unknown key", "bind-addr"),
    (
        f"[admin]\nbind-addr = '127.0.0.1:9096'\n{HTTP}{OUTPUT}",
        "admin.bind-addr",
        'duplicate bind-addr "127.0.0.1:9096" (also http[0])',
        "of its own",
    ),
    (f"admin-socket = '/{'x' * 107}'\n{HTTP}{OUTPUT}", "admin-socket", "'/xxx", "at most 107 bytes"),
    # Types and bounds
    (f"shutdown-timeout = 10\n{HTTP}{OUTPUT}", "shutdown-timeout", "10", '"10s"'),
    (f"shutdown-timeout = '0'\n{HTTP}{OUTPUT}", "shutdown-timeout", "'0'", "above 0"),
    (f"{HTTP}{OUTPUT}timeout = '10'", f"{B}.timeout", "'10'", "a duration above 0"),
    (f"{HTTP}{OUTPUT}timeout = '-1s'", f"{B}.timeout", "'-1s'", "a duration above 0"),
    (f"{HTTP}{OUTPUT}timeout = '1 s'", f"{B}.timeout", "'1 s'", "a duration above 0"),
    (f"{HTTP}{OUTPUT}timeout = 1979-05-27", f"{B}.timeout", "a date or time", "a duration above 0"),
    (f"{HTTP}{OUTPUT}max-delay-interval = '5sec'", f"{B}.max-delay-interval", "'5sec'", "a duration above 0"),
    (f"{HTTP}{OUTPUT}max-batch-kb = true", f"{B}.max-batch-kb", "true", "an integer from 1"),
    (f"{HTTP}{OUTPUT}max-batch-kb = 1.5", f"{B}.max-batch-kb", "1.5", "an integer from 1"),
    (f"{HTTP}{OUTPUT}max-batch-kb = false", f"{B}.max-batch-kb", "false", "an integer from 1"),
    (f"{HTTP}{OUTPUT}max-in-flight = 0", f"{B}.max-in-flight", "0", "an integer from 1"),
    (f"{HTTP}{OUTPUT}max-waiting-mb = 0", f"{B}.max-waiting-mb", "0", "an integer from 1"),
    (f"{HTTP}{OUTPUT}gzip = 1", f"{B}.gzip", "1", '"as-received", true or false'),
    (f"{HTTP}{OUTPUT}api = 'v4'", f"{B}.api", "'v4'", '"v1", "v2" or "v3"'),
    (f"{HTTP}{OUTPUT}org = 'o'", f"{B}.org", "set without", "add that, or remove it"),
    (f"{HTTP}{OUTPUT}buckets = {{ a = 1 }}", f"{B}.buckets", "the name for 'a'", "a table such as"),
    (f"{HTTP}{OUTPUT}max-connections = -1", f"{B}.max-connections", "-1", "an integer from 1"),
    (f"{HTTP}{OUTPUT}headers = '{SECRET}'", f"{B}.headers", "a string", "a table of HTTP headers"),
    (f"{HTTP}{OUTPUT}headers = {{ 'a b' = '{SECRET}' }}", f"{B}.headers", "a name that is none", "a table of HTTP"),
    (f"{HTTP}{OUTPUT}headers = {{ X = '{SECRET}é' }}", f"{B}.headers", "the value of X", "printable ASCII"),
    (f"{HTTP}{OUTPUT}headers = {{ X = ' {SECRET}' }}", f"{B}.headers", "the value of X", "printable ASCII"),
    (f"{HTTP}{OUTPUT}headers = {{ X = 1 }}", f"{B}.headers", "the value of X", "printable ASCII"),
    (f"{HTTP}{OUTPUT}headers = {{ X = '{SECRET}', x = 'b' }}", f"{B}.headers", "there twice", "a table"),
    (
        f"{HTTP}{OUTPUT}headers = {{ content-length = '1' }}",
        f"{B}.headers",
        "content-length, which is",
        "a table of HTTP",
    ),
    (
        f"{HTTP}{OUTPUT}token = '{SECRET}'\nheaders = {{ authorization = '{SECRET}' }}",
        f"{B}.headers",
        "Authorization is among them, and token is set too",
        "use one of the two",
    ),
    (f"{HTTP}{OUTPUT}skip-tls-verification = 'no'", f"{B}.skip-tls-verification", "'no'", "true or false"),
    (f"{HTTP}{OUTPUT}name = 5", f"{B}.name", "5", "a string"),
    (f'{HTTP}{OUTPUT}name = "a\\nb"', f"{B}.name", r"'a\nb'", "without control characters"),
    (f"{HTTP}default-ping-response = 404\n{OUTPUT}", f"{L}.default-ping-response", "404", "from 200 to 299"),
    (f"{HTTP}health-timeout-ms = '1s'\n{OUTPUT}", f"{L}.health-timeout-ms", "'1s'", "an integer from 1"),
    (f"{HTTP}rate-limit = -5\n{OUTPUT}", f"{L}.rate-limit", "-5", "an integer from 0"),
    (f"{HTTP}burst-limit = -1\n{OUTPUT}", f"{L}.burst-limit", "-1", "an integer from 0"),
    (f"{HTTP}max-body-size = '25MB'\n{OUTPUT}", f"{L}.max-body-size", "'25MB'", "an integer from 0"),
    (f"{HTTP}max-decoded-size = -1\n{OUTPUT}", f"{L}.max-decoded-size", "-1", "an integer from 0"),
    (f"{HTTP}prometheus-database = 5\n{OUTPUT}", f"{L}.prometheus-database", "5", "a string"),
    (f"{HTTP}{OUTPUT}type = 'graphite'", f"{B}.type", "'graphite'", '"influxdb" or "prometheus"'),
    (f"{HTTP}cors-origins = '*'\n{OUTPUT}", f"{L}.cors-origins", "'*'", '["*"]'),
    (f"{HTTP}cors-origins = ['example.org']\n{OUTPUT}", f"{L}.cors-origins", "an array", "an array of origins"),
    (f"{HTTP}cors-origins = ['https://a/b']\n{OUTPUT}", f"{L}.cors-origins", "an array", "an array of origins"),
    (f"{HTTP}max-connections = -1\n{OUTPUT}", f"{L}.max-connections", "-1", "an integer from 1"),
    (f"{HTTP}max-in-flight-mb = 0.5\n{OUTPUT}", f"{L}.max-in-flight-mb", "0.5", "an integer from 1"),
    (f"{HTTP}header-timeout = 10\n{OUTPUT}", f"{L}.header-timeout", "10", "a duration above 0"),
    (f"{HTTP}body-timeout = '0s'\n{OUTPUT}", f"{L}.body-timeout", "'0s'", "a duration above 0"),
    (f"{HTTP}idle-timeout = '3'\n{OUTPUT}", f"{L}.idle-timeout", "'3'", "a duration above 0"),
    (f"{HTTP}max-body-size = {'9' * 90}\n{OUTPUT}", f"{L}.max-body-size", "999...", "an integer from 0"),
    (f"{HTTP}access-log = 'yes'\n{OUTPUT}", f"{L}.access-log", "'yes'", "true or false"),
    (f"{HTTP}queries = 'yes'\n{OUTPUT}", f"{L}.queries", "'yes'", "true or false"),
    (f"{HTTP}queries-when-behind = 'ask'\n{OUTPUT}", f"{L}.queries-when-behind", "'ask'", '"serve" or "refuse"'),
    (f"{HTTP}query-timeout = '0s'\n{OUTPUT}", f"{L}.query-timeout", "'0s'", "a duration above 0"),
    (f"{HTTP}query-credentials = 'own'\n{OUTPUT}", f"{L}.query-credentials", "'own'", '"client" or "output"'),
    (f"{HTTP}max-queries = -1\n{OUTPUT}", f"{L}.max-queries", "-1", "an integer from 1"),
    (f"{HTTP}slow-query = '0s'\n{OUTPUT}", f"{L}.slow-query", "'0s'", "a duration above 0"),
    (f"{HTTP}read-only = 'yes'\n{OUTPUT}", f"{L}.read-only", "'yes'", "true or false"),
    (f"{UDP}precision = 'us'\n{UDP_OUTPUT}", f"{U}.precision", "'us'", '"u"'),
    (f"{UDP}read-buffer = -1\n{UDP_OUTPUT}", f"{U}.read-buffer", "-1", "an integer from 0"),
    (f"{UDP}batch-size = 0\n{UDP_OUTPUT}", f"{U}.batch-size", "0", "an integer from 1"),
    (f"{UDP}batch-kb = 0\n{UDP_OUTPUT}", f"{U}.batch-kb", "0", "an integer from 1"),
    (f"{UDP}batch-timeout = '0s'\n{UDP_OUTPUT}", f"{U}.batch-timeout", "'0s'", "above 0"),
    (f"{UDP}{UDP_OUTPUT}mtu = 65508", f"{V}.mtu", "65508", "from 1 to 65507"),
    # Addresses
    (f"[[http]]\n{OUTPUT}", f"{L}.bind-addr", "missing", "ADDRESS:PORT"),
    (f"[[udp]]\n{UDP_OUTPUT}", f"{U}.bind-addr", "missing", "ADDRESS:PORT"),
    (bound("9096"), f"{L}.bind-addr", "'9096'", "ADDRESS:PORT"),
    (bound("127.0.0.1"), f"{L}.bind-addr", "'127.0.0.1'", "ADDRESS:PORT"),
    (bound("127.0.0.1:65536"), f"{L}.bind-addr", "'127.0.0.1:65536'", "0 to 65535"),
    (bound("300.0.0.1:9096"), f"{L}.bind-addr", "'300.0.0.1:9096'", "an IP address"),
    (bound("relay.example.com:9096"), f"{L}.bind-addr", "'relay.example.com:9096'", "an IP address"),
    (bound("localhost:http"), f"{L}.bind-addr", "'localhost:http'", "port from 0"),
    (bound("::1:9096"), f"{L}.bind-addr", "'::1:9096'", "[IPv6]:PORT"),
    (bound("fe80::1:9096"), f"{L}.bind-addr", "'fe80::1:9096'", "[IPv6]:PORT"),
    (bound("[nonsense]:9096"), f"{L}.bind-addr", "'[nonsense]:9096'", "[IPv6]:PORT"),
    (bound("http://127.0.0.1:9096"), f"{L}.bind-addr", "'http://127.0.0.1:9096'", "ADDRESS:PORT"),
    (bound("unix:"), f"{L}.bind-addr", "'unix:'", "unix:/run"),
    (f"[[udp]]\nbind-addr = 'unix:/x'\n{UDP_OUTPUT}", f"{U}.bind-addr", "'unix:/x'", "ADDRESS:PORT"),
    (udp_at("127.0.0.1:0"), f"{V}.location", "'127.0.0.1:0'", "from 1 to 65535"),
    (udp_at("127.0.0.1"), f"{V}.location", "'127.0.0.1'", "host:port"),
    (udp_at("no host:8089"), f"{V}.location", "'no host:8089'", "host:port"),
    (udp_at("udp://127.0.0.1:8089"), f"{V}.location", "'udp://127.0.0.1:8089'", "host:port"),
    (f"{UDP}[[udp.output]]\nname = 'x'", f"{V}.location", "missing", "host:port"),
    # URLs
    (f"{HTTP}[[http.output]]\nname = 'x'", f"{B}.location", "missing", "http:// or https://"),
    (f"{HTTP}[[http.output]]\nlocation = 5", f"{B}.location", "5", "http:// or https://"),
    (at(""), f"{B}.location", "''", "http:// or https://"),
    (at("127.0.0.1:8086"), f"{B}.location", "'127.0.0.1:8086'", "http:// or https://"),
    (at("ftp://h/write"), f"{B}.location", "'ftp://h/write'", "http:// or https://"),
    (at("http:///write"), f"{B}.location", "'http:///write'", "http:// or https://"),
    (at("http://h:0/write"), f"{B}.location", "'http://h:0/write'", "http:// or https://"),
    (at("http://h:65536/write"), f"{B}.location", "'http://h:65536/write'", "http:// or https://"),
    (at("http://h:x/write"), f"{B}.location", "'http://h:x/write'", "http:// or https://"),
    (at("http://h:/write"), f"{B}.location", "'http://h:/write'", "http:// or https://"),
    (at("http://h h/write"), f"{B}.location", "'http://h h/write'", "http:// or https://"),
    (at("http://[::1/write"), f"{B}.location", "'http://[::1/write'", "http:// or https://"),
    (at("http://1.2.3/write"), f"{B}.location", "'http://1.2.3/write'", "http:// or https://"),
    (at("http://h/%zz"), f"{B}.location", "'http://h/%zz'", "http:// or https://"),
    (at("http://h/write?db=x"), f"{B}.location", "'http://h/write?***'", "a URL without ?"),
    (at("http://h/write#x"), f"{B}.location", "'http://h/write#***'", "a URL without ? and #"),
    (at(f"http://me:{SECRET}@h/write"), f"{B}.location", "'http://***@h/write'", "keys username and password"),
    (at(f"me:{SECRET}@h:8086"), f"{B}.location", "'***@h:8086'", "http:// or https://"),
    (at("http://" + "h" * 80 + "!"), f"{B}.location", "hhh...", "http:// or https://"),
    (f"{HTTP}{OUTPUT}endpoints = {{ ping = '/p?x=1' }}", f"{B}.endpoints.ping", "'/p?***'", '"/write"'),
    (f"{HTTP}{OUTPUT}endpoints = {{ ping = '//h/p' }}", f"{B}.endpoints.ping", "'//h/p'", '"/write"'),
    (f"{HTTP}{OUTPUT}endpoints = {{ query = 'http://h' }}", f"{B}.endpoints.query", "'http://h'", '"/write"'),
    (udp_at("http://h/write"), f"{V}.location", "'http://h/write'", "?db=telegraf"),
    (udp_at("http://h/write?db="), f"{V}.location", "'http://h/write?***'", "?db=telegraf"),
    (udp_at("http://h/write?db=x&precision=s"), f"{V}.location", "'http://h/write?***'", "without precision="),
    (udp_at(f"http://h/write?db=x&u=me&p={SECRET}"), f"{V}.location", "'http://h/write?***'", "keys username"),
    (udp_at("http://h/write?db=x#y"), f"{V}.location", "'http://h/write?***'", "without #"),
    # Credentials and files
    (f"{HTTP}{OUTPUT}username = 'me'", f"{B}.username", "set without a password", "password-file"),
    (f"{HTTP}{OUTPUT}password = '{SECRET}'", f"{B}.username", "missing", "a username"),
    (f"{HTTP}{OUTPUT}password = ['{SECRET}']", f"{B}.password", "an array", "a string"),
    (f'{HTTP}{OUTPUT}token = "{SECRET}\\n"', f"{B}.token", "a string", "without control characters"),
    (f"{HTTP}{OUTPUT}token = '{SECRET}é'", f"{B}.token", "a string", "ASCII"),
    (f"{HTTP}{OUTPUT}username = 'me:{SECRET}'", f"{B}.username", "a string", "without a colon"),
    (f"{HTTP}{OUTPUT}pasword = '{SECRET}'", f"{B}.pasword", 'did you mean "password"', "username"),
    (f"{HTTP}output = {{ password = '{SECRET}' }}", f"{L}.output", "a table", "an array of tables"),
    (f"{HTTP}{OUTPUT}timeout = {{ password = '{SECRET}' }}", f"{B}.timeout", "a table", "a duration"),
    (
        f"{HTTP}{OUTPUT}username='me'\npassword='x'\ntoken='{SECRET}'",
        f"{B}.token",
        "username or password is set",
        "a token, or",
    ),
    (
        f"{HTTP}{OUTPUT}username='me'\npassword='x'\npassword-file='good'",
        f"{B}.password-file",
        "password is set",
        "one of",
    ),
    (f"{HTTP}{OUTPUT}token = 'x'\ntoken-file = 'good'", f"{B}.token-file", "token is set", "one of"),
    (f"{HTTP}{OUTPUT}username='me'\npassword-file='gone'", f"{B}.password-file", "'gone' (cannot read it", "readable"),
    (f"{HTTP}{OUTPUT}username='me'\npassword-file='empty'", f"{B}.password-file", "'empty' (it is empty)", "secret"),
    (f"{HTTP}{OUTPUT}token-file = 'lines'", f"{B}.token-file", "'lines' (wrong content)", "without control"),
    (f"{HTTP}{OUTPUT}token-file = 'latin'", f"{B}.token-file", "'latin' (it is not UTF-8)", "UTF-8"),
    (f"{HTTP}{OUTPUT}token-file = 5", f"{B}.token-file", "5", "a string"),
    (f"{HTTP}{OUTPUT}ca-file = 'gone'", f"{B}.ca-file", "'gone' (cannot read it: No such file", "a readable file"),
    (f"{HTTP}{OUTPUT}ca-file = '.'", f"{B}.ca-file", "'.' (cannot read it: Is a directory", "a readable file"),
    (
        f"{HTTP}{OUTPUT}client-certificate = 'good'",
        f"{B}.client-certificate",
        "'good' (it has no certificate)",
        "a PEM file",
    ),
    (f"{HTTP}ssl-combined-pem = 'cert'\n{OUTPUT}", f"{L}.ssl-combined-pem", "'cert' (it has no such key)", "key"),
    (
        f"{HTTP}ssl-combined-pem = 'locked'\n{OUTPUT}",
        f"{L}.ssl-combined-pem",
        "'locked' (it has no such key)",
        "unencrypted",
    ),
    (
        f"[[http]]\nbind-addr = 'tcp:9096'\nssl-combined-pem = 'pem'\n{OUTPUT}",
        f"{L}.ssl-combined-pem",
        "bind-addr is an endpoint string",
        "an ssl: endpoint",
    ),
    # What has to be unique
    (
        HTTP + OUTPUT + UDP.replace('"u"', '"a"') + UDP_OUTPUT,
        "udp[0].name",
        'duplicate name "a" (also http[0])',
        "be unique",
    ),
    (bound(":1") + bound("0.0.0.0:1"), "http[1].bind-addr", '"0.0.0.0:1" (also http[0])', "of its own"),
    (bound("unix:/x") + bound("unix:/x", "name = 'b'"), "http[1].bind-addr", '"unix:/x" (also http[0])', "of its own"),
    (
        UDP + UDP_OUTPUT + UDP.replace('"u"', '"v"').replace("127.0.0.1", "localhost") + UDP_OUTPUT,
        "udp[1].bind-addr",
        'duplicate bind-addr "localhost:9096" (also udp[0])',
        "of its own",
    ),
]


class BrokenTests(ConfigTestCase):
    """Configurations that are refused."""

    def test_one_line_says_it_all(self) -> None:
        """Each mistake is one line: the file, the key's path, what is wrong, then what is allowed; no secret."""
        for text, path, wrong, allowed in BROKEN:
            with self.subTest(text):
                Path("relay.toml").write_text(text, encoding="utf-8")
                line = self.error()
                where = f"relay.toml: {path}: " if path else "relay.toml: "
                self.assertTrue(line.startswith(where), line)
                found, _, message = line.removeprefix(where).partition("; ")
                self.assertIn(wrong, found)
                self.assertIn(allowed, message)
                self.assertTrue(line.isprintable(), line)
                self.assertNotIn(SECRET, line)

    def test_table_is_large_enough(self) -> None:
        """There is a broken configuration for every key that can have a wrong value."""
        paths = " ".join(path for _, path, _, _ in BROKEN)
        for table in (
            config_keys.CONFIG,
            config_keys.HTTP,
            config_keys.HTTP_OUTPUT,
            config_keys.UDP,
            config_keys.UDP_OUTPUT,
        ):
            for key in table.keys() - {"default-retention-policy"}:
                self.assertIn(key, paths)

    def test_unreadable_files(self) -> None:
        """A file that is missing, a directory, not named at all or not UTF-8 is told in one line as well."""
        Path("binary.toml").write_bytes(b"name = '\xff'")
        for path, found in (
            ("gone.toml", "No such file"),
            (".", "Is a directory"),
            ("a\nb", "No such file"),
            ("a\0b", "null byte"),
            ("binary.toml", "not UTF-8 (byte 8)"),
        ):
            line = self.error(path)
            self.assertTrue(line.startswith(path if path.isprintable() else repr(path)), line)
            self.assertIn(found, line)
            self.assertTrue(line.isprintable(), line)

    def test_secrets_in_values_and_files_stay_there(self) -> None:
        """No repr of a loaded configuration shows a password or token, wherever it came from."""
        for more in (
            f"username = 'me'\npassword = '{SECRET}'",
            "username = 'me'\npassword-file = 'good'",
            f"token = '{SECRET}'",
            "token-file = 'windows'",
        ):
            loaded = self.load(at("http://h/write") + more)
            output = loaded.http[0].outputs[0]
            self.assertEqual(SECRET, output.password or output.token)
            self.assertNotIn(SECRET, repr(loaded))


class DialectTests(ConfigTestCase):
    """Files that run."""

    def test_influxdb_relay(self) -> None:
        """A file of InfluxDB Relay means what it means there."""
        loaded = config.load(CONFIGS / "relay.toml")
        east = "http://east.example.com:8086"
        west = "https://west.example.com/influx"
        self.assertEqual(
            Config(
                path=str(CONFIGS / "relay.toml"),
                http=(
                    HTTPListenerConfig(
                        name="metrics",
                        bind_addr="0.0.0.0:9096",
                        endpoint="tcp:9096:interface=0.0.0.0",
                        default_retention_policy="autogen",
                        outputs=(
                            HTTPOutputConfig(
                                "east", f"{east}/write", f"{east}/write", f"{east}/ping", f"{east}/query", timeout=2.0
                            ),
                            HTTPOutputConfig(
                                "west",
                                f"{west}/write",
                                f"{west}/write",
                                f"{west}/ping",
                                f"{west}/query",
                                max_batch_kb=50,
                                max_delay_interval=90.0,
                                skip_tls_verification=True,
                            ),
                        ),
                    ),
                ),
                udp=(
                    UDPListenerConfig(
                        name="counters",
                        bind_addr=":8089",
                        host="",
                        port=8089,
                        read_buffer=1048576,
                        outputs=(
                            UDPOutputConfig("east", "east.example.com:8089", "east.example.com", 8089, mtu=512),
                            UDPOutputConfig("[::1]:8090", "[::1]:8090", "::1", 8090),
                        ),
                    ),
                ),
            ),
            loaded,
        )

    def test_influxdb_relay_with_buffers(self) -> None:
        """The buffers of InfluxDB Relay mean what they mean there."""
        (listener,) = config.load(CONFIGS / "buffered.toml").http
        self.assertEqual(
            [("near", 10.0, 100, 50, 5.0), ("far", 20.0, 250, 10, 60.0)],
            [(o.name, o.timeout, o.buffer_size_mb, o.max_batch_kb, o.max_delay_interval) for o in listener.outputs],
        )
        self.assertEqual(
            ({"reject"}, None, "one"),
            ({output.buffer_full for output in listener.outputs}, listener.journal, listener.consistency),
        )

    def test_veepee_fork(self) -> None:
        """A file of the Veepee fork means what it means there, and tables may come in any order."""
        loaded = config.load(CONFIGS / "fork.toml")
        first, second = loaded.http
        self.assertEqual(
            (200, 2.5, 1000, 50, r"tcp6:9096:interface=\:\:1", "tcp:9097:interface=127.0.0.1"),
            (
                first.default_ping_response,
                first.health_timeout,
                first.rate_limit,
                first.burst_limit,
                first.endpoint,
                second.endpoint,
            ),
        )
        one, two, three = "http://10.0.0.1:8086", "http://10.0.0.2:8086", "https://10.0.0.3/influx"
        four, five = "http://10.0.0.4:8086", "http://10.0.0.5:8428"
        self.assertEqual(
            [
                ("slash", f"{one}/write", f"{one}/api/v1/prom/write", f"{one}/ping", 0.5),
                ("plain", f"{two}/write", None, f"{two}/kapacitor/v1/ping", 10.0),
                ("root", f"{five}/write", f"{five}/api/v1/write", f"{five}/", 10.0),
                ("prefix", f"{three}/api/v2/write", None, f"{three}/api/v2/ping", 10.0),
                ("bare", f"{four}/write", None, f"{four}/ping", 10.0),
            ],
            [(o.name, o.write_url, o.write_prom_url, o.ping_url, o.timeout) for o in (*first.outputs, *second.outputs)],
        )
        self.assertEqual(512, loaded.udp[0].outputs[0].mtu)  # type: ignore[union-attr]

    def test_host_names(self) -> None:
        """Whatever a resolver may know is a host's name, in URLs and in addresses of datagrams."""
        for host in ("my_influxdb_1", "db--01", "_db-", "db.example.org.", "xn--a", "x" * 64):
            output = self.load(at(f"http://{host}:8086/write")).http[0].outputs[0]
            self.assertEqual(
                (output.write_url, output.ping_url), (f"http://{host}:8086/write", f"http://{host}:8086/ping")
            )
            web = self.load(udp_at(f"https://{host}/write?db=x")).udp[0].outputs[0]
            self.assertEqual(web.write_url, f"https://{host}/write")  # type: ignore[union-attr]
            datagrams = self.load(udp_at(f"{host}:8089")).udp[0].outputs[0]
            self.assertEqual(datagrams.host, host)  # type: ignore[union-attr]
        output = self.load(at("http://[fe80::1%25eth0]:8086/write")).http[0].outputs[0]
        self.assertEqual(output.write_url, "http://[fe80::1%25eth0]:8086/write")
        zone = self.load(udp_at("[fe80::1%eth0]:8089")).udp[0].outputs[0]
        self.assertEqual(zone.host, "fe80::1%eth0")  # type: ignore[union-attr]

    def test_our_own(self) -> None:
        """Our own keys mean what etc/relay.toml says, and UDP outputs may be URLs."""
        loaded = config.load(CONFIGS / "ours.toml")
        http, udp, kept = loaded.http[0], *loaded.udp
        self.assertEqual((2.5, "/run/influxrelay/admin.sock"), (loaded.shutdown_timeout, loaded.admin_socket))
        self.assertEqual(
            JournalConfig("/var/lib/influxrelay/http", 20 * 1024 * 1024, 36 * 3600.0, "drop-oldest", "full", "refuse"),
            http.journal,
        )
        self.assertEqual([True, False], [output.create_databases for output in http.outputs])
        self.assertEqual((None, JournalConfig("/var/lib/influxrelay/udp")), (udp.journal, kept.journal))
        self.assertEqual("unix:/run/influxrelay.sock:mode=660", http.endpoint)
        self.assertEqual(
            (http.endpoint, 0, "one", True), (http.name, http.max_body_size, http.consistency, http.access_log)
        )
        self.assertEqual((0, ("https://grafana.example.org:3000",)), (http.max_decoded_size, http.cors_origins))
        self.assertEqual(
            [("relay", "correct horse", None, True, 2, 64), (None, None, "battery-staple", None, 1, 32)],
            [(o.username, o.password, o.token, o.gzip, o.max_in_flight, o.max_waiting_mb) for o in http.outputs],
        )
        self.assertEqual(
            ("[::]:8089", "::", 8089, "s", 100, 64 * 1024, 0.25),
            (udp.name, udp.host, udp.port, udp.precision, udp.batch_lines, udp.batch_bytes, udp.batch_interval),
        )
        self.assertEqual(
            (
                HTTPOutputConfig(
                    "web",
                    "https://10.0.0.1:8086/write?db=telegraf&rp=two%20weeks",
                    "https://10.0.0.1:8086/write",
                    "https://10.0.0.1:8086/ping",
                    "https://10.0.0.1:8086/query",
                    username="relay",
                    password="correct horse",
                    timeout=3.0,
                    buffer_size_mb=8,
                    buffer_full="drop-oldest",
                    create_databases=True,
                    query="db=telegraf&rp=two%20weeks",
                ),
                UDPOutputConfig("datagrams", "10.0.0.2:8089", "10.0.0.2", 8089),
            ),
            udp.outputs,
        )

    def test_urls(self) -> None:
        """Locations and endpoints are joined with one slash, and a location without endpoints.write may be whole."""
        for location, endpoints, write, prom, ping in (
            ("http://h/write", "", "/write", None, "/ping"),
            ("http://h", "", "/write", None, "/ping"),
            ("http://h/", "", "/write", None, "/ping"),
            ("http://h/influx/", "", "/influx/write", None, "/influx/ping"),
            ("http://h/a/b", "", "/a/b", None, "/a/ping"),
            ("http://h/write", "ping = '/p', write_prom = 'x/y'", "/write", "/x/y", "/p"),
            ("http://h/influx", "write = '/w/', ping = 'p'", "/influx/w/", None, "/influx/p"),
            ("http://h/influx/", "write = 'w/x'", "/influx/w/x", None, "/influx/w/ping"),
            ("http://h", "write = '/w/'", "/w/", None, "/ping"),
            ("http://h", "write_prom = '/x', write = '', query = '/q'", "/write", "/x", "/ping"),
            ("http://h", "write = '/write', write_prom = '/', ping = '/', query = '/'", "/write", "/", "/"),
            ("http://h", "write = '/'", "/", None, "/ping"),
            ("http://h/influx/", "write = '/', ping = '/'", "/influx/", None, "/influx/"),
        ):
            with self.subTest(f"{location} {endpoints}"):
                output = self.output(location, f"endpoints = {{ {endpoints} }}")
                found = (output.write_url, output.write_prom_url, output.ping_url)
                self.assertEqual((f"http://h{write}", prom and f"http://h{prom}", f"http://h{ping}"), found)

    def test_empty_and_zero_stand_for_the_default(self) -> None:
        """As in both originals an empty string, and a 0 where it makes no sense, say nothing."""
        plain = self.load(HTTP + OUTPUT + UDP + UDP_OUTPUT)
        nothing = "".join(f"{key} = {0 if key.endswith('mb') else repr('')}\n" for key in config_keys.JOURNAL)
        padded = self.load(
            f"admin-socket = ''\n"
            f"{HTTP}{nothing}ssl-combined-pem = ''\ndefault-retention-policy = ''\ndefault-ping-response = 0\n"
            f"health-timeout-ms = 0\nconsistency = ''\n"
            f"{OUTPUT}name = ''\ntimeout = ''\nbuffer-size-mb = 0\nbuffer-full = ''\nmax-batch-kb = 0\n"
            f"max-delay-interval = ''\nca-file = ''\nusername = ''\npassword = ''\ntoken-file = ''\n"
            f"{UDP}{nothing}precision = ''\nbatch-timeout = ''\n{UDP_OUTPUT}mtu = 0\n"
        )
        self.assertEqual(plain, padded)

    def test_journal(self) -> None:
        """A journal's bounds have defaults, an empty directory switches it off, and a buffer may stay beside it."""
        loaded = self.load(f"{HTTP}{JOURNAL}journal-max-mb = 0\n{OUTPUT}{BUFFER}create-databases = true\n")
        self.assertEqual(JournalConfig("d", 1024**3, 604800.0, "reject", "normal", "relay"), loaded.http[0].journal)
        self.assertEqual(
            (1, True), (loaded.http[0].outputs[0].buffer_size_mb, loaded.http[0].outputs[0].create_databases)
        )
        self.assertIsNone(self.load(f"{HTTP}journal = ''\njournal-max-mb = 5\n{OUTPUT}").http[0].journal)

    def test_consistency(self) -> None:
        """Each level is known, in any case, with and without a queue."""
        for level in ("any", "one", "quorum", "all"):
            for written in (level, level.upper()):
                self.assertEqual(level, self.load(f"{HTTP}consistency = '{written}'\n{OUTPUT}").http[0].consistency)

    def test_names_default_to_where_things_are(self) -> None:
        """Without names, listeners and outputs are called as InfluxDB Relay calls them."""
        loaded = self.load(
            bound(":1") + bound(":2", "ssl-combined-pem = 'pem'") + udp_at(":8089").replace('name = "u"', "")
        )
        self.assertEqual(["http://:1", "https://:2"], [each.name for each in loaded.http])
        self.assertEqual(["127.0.0.1:9096"], [each.name for each in loaded.udp])
        self.assertEqual("http://127.0.0.1:8086/write", loaded.http[0].outputs[0].name)
        self.assertEqual(UDPOutputConfig(":8089", ":8089", "127.0.0.1", 8089), loaded.udp[0].outputs[0])

    def test_any_free_port_twice(self) -> None:
        """Two listeners may both ask for any free port, and HTTP and UDP may share a number."""
        loaded = self.load(bound(":0") + bound(":0", "name = 'b'") + UDP + UDP_OUTPUT + HTTP + OUTPUT)
        self.assertEqual((3, 1), (len(loaded.http), len(loaded.udp)))

    def test_byte_order_mark_and_crlf(self) -> None:
        """A file from a Windows editor loads."""
        Path("relay.toml").write_bytes(b"\xef\xbb\xbf" + (HTTP + OUTPUT).replace("\n", "\r\n").encode())
        self.assertEqual("a", config.load("relay.toml").http[0].name)

    def test_values_are_frozen(self) -> None:
        """Nobody changes a loaded configuration."""
        with self.assertRaises(attrs.exceptions.FrozenInstanceError):
            self.output("http://h/write").timeout = 1.0  # type: ignore[misc]


class EndpointTests(ConfigTestCase):
    """From bind-addr to Twisted's endpoint strings."""

    def endpoint(self, address: str, pem: str = "") -> str:
        """Return the endpoint of an HTTP listener."""
        return self.load(f"[[http]]\nbind-addr = '{address}'\nssl-combined-pem = '{pem}'\n{OUTPUT}").http[0].endpoint

    def test_strings(self) -> None:
        """Addresses become endpoint strings, and endpoint strings stay what they are."""
        for address, endpoint in (
            ("127.0.0.1:9096", "tcp:9096:interface=127.0.0.1"),
            ("localhost:9096", "tcp:9096:interface=127.0.0.1"),
            (":9096", "tcp:9096"),
            (":0", "tcp:0"),
            ("[::]:9096", r"tcp6:9096:interface=\:\:"),
            ("[0:0::1]:9096", r"tcp6:9096:interface=\:\:1"),
            ("tcp:9096", "tcp:9096"),
            ("unix:/run/relay.sock", "unix:/run/relay.sock"),
            ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
        ):
            with self.subTest(address):
                self.assertEqual(endpoint, self.endpoint(address))

    def test_pem(self) -> None:
        """A PEM file becomes part of the endpoint, whatever its path, encoding and line ends, as do IPv6 addresses."""
        os.mkdir("a:b\\c")  # noqa: PTH102 (Path would hide what the name is)
        Path("a:b\\c/=x.pem").write_bytes(make_pem("leaf", "authority"))
        comment = "# größer\r\n".encode("latin-1")
        Path("one.pem").write_bytes(comment + make_pem("leaf").replace(b"\n", b"  \r\n"))
        self.assertEqual(
            r"ssl:9096:interface=\:\:1:privateKey=a\:b\\c/=x.pem", self.endpoint("[::1]:9096", "a:b\\c/=x.pem")
        )
        self.assertEqual("ssl:9096:privateKey=one.pem", self.endpoint(":9096", "one.pem"))


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
                owner, name = JournalConfig, name.removeprefix("journal_")
            default = {field.name: field.default for field in attrs.fields(owner)}.get(name)
            with self.subTest(f"{table}.{key}"):
                read = KEYS[table][key](value)
                if value in ("", {}):
                    self.assertIn(default, (None, "", ()))
                else:
                    self.assertIn(default, (value, None) if read is None else (read,))

    def test_every_key_is_there(self) -> None:
        """The reference shows every key that the code knows, and no other."""
        text = REFERENCE.read_text(encoding="utf-8")
        shown: dict[str, set[str]] = {table: set() for table in KEYS}
        for table, key, _ in self.shown_defaults(DEFAULT_KEY.sub(r"# \1 = \2", re.sub(r"(?m)^(?=[a-z])", "# ", text))):
            shown[table].add(key)
        for table, keys in KEYS.items():
            self.assertEqual(keys.keys() - {"admin", "http", "udp", "tcp", "filter", "output"}, shown[table])
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
    "udp": config_keys.UDP,
    "udp.output": config_keys.UDP_OUTPUT,
    "tcp": config_keys.TCP,
    "tcp.output": config_keys.TCP_OUTPUT,
}


class DurationTests(SynchronousTestCase):
    """Go's time.ParseDuration."""

    def test_examples(self) -> None:
        """What Go's documentation and tests call durations are durations."""
        for text, seconds in (
            ("0", 0.0),
            ("-0", 0.0),
            ("500ms", 0.5),
            ("1m30s", 90.0),
            ("1h1m1s1ms", 3661.001),
            ("1.5h", 5400.0),
            (".5s", 0.5),
            ("5.s", 5.0),
            ("+5s", 5.0),
            ("-1.5s", -1.5),
            ("10us", 1e-05),
            ("10\u00b5s", 1e-05),
            ("10\u03bcs", 1e-05),
            ("39h9m14.425s", 140954.425),
            ("0.9ns", 0.0),
            ("0.3333333333333333333h", 1199.999999999),
            ("9223372036854775807ns", 9223372036.854775807),
            ("-9223372036854775808ns", -9223372036.854775808),
        ):
            with self.subTest(text):
                self.assertAlmostEqual(seconds, parse_duration(text), places=9)

    def test_no_durations(self) -> None:
        """What Go refuses is refused."""
        for text in (
            "", "3", "-", "s", ".", "-.", ".s", "+.s", "1d", "1S", "1 s", " 1s", "1s ", "1s\n", "1sm", "--1s", "1.2.3s",
            "1e3s", "٣s", "00", "0x1s", "9223372036854775808ns", "-9223372036854775809ns", "9" * 5000 + "s", "2562048h",
        ):  # fmt: skip
            with self.subTest(text[:20]):
                self.assertRaises(ValueError, parse_duration, text)

    @given(
        st.lists(st.tuples(st.integers(0, 10**5), st.sampled_from(["ns", "us", "ms", "s", "m", "h"])), min_size=1),
        st.sampled_from(["", "+", "-"]),
    )
    def test_terms_add_up(self, terms: list[tuple[int, str]], sign: str) -> None:
        """A duration is the sum of its terms, whatever their order."""
        units = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
        text = sign + "".join(f"{number}{unit}" for number, unit in terms)
        total = sum(number * units[unit] for number, unit in terms) * (-1 if sign == "-" else 1)
        self.assertEqual(total / 10**9, parse_duration(text))

    @given(st.text(st.sampled_from(string.digits + "+-.nuµmsh "), max_size=12))
    @settings(max_examples=300)
    def test_never_anything_but_a_number_or_value_error(self, text: str) -> None:
        """Any text is a number of seconds or a ValueError, and one without its unit is no duration unless it is 0."""
        try:
            seconds = parse_duration(text)
        except ValueError:
            return
        self.assertIsInstance(seconds, float)
        self.assertTrue(text[-1] in "smh" or text.lstrip("+-") == "0", text)
