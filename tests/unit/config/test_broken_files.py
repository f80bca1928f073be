"""Files that are refused: the one line that says why."""

from __future__ import annotations

from pathlib import Path

from influxrelay.config import schema as config_keys
from testing.configuration import (
    BUFFER,
    HTTP,
    JOURNAL,
    OUTPUT,
    SECRET,
    UDP,
    UDP_OUTPUT,
    ConfigTestCase,
    at,
    bound,
    udp_at,
)

WEB_OUTPUT = '[[udp.output]]\nlocation = "http://127.0.0.1:8086/write?db=telegraf"\n'
FILTER = f"{HTTP}{OUTPUT}name = 'b'\n[[filter]]\noutputs = ['b']\n"
L, B, U, V = "http[0]", "http[0].output[0]", "udp[0]", "udp[0].output[0]"
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
    (f"{HTTP}{JOURNAL}journal-timeout = '0s'\n{OUTPUT}", f"{L}.journal-timeout", "'0s'", "a duration above 0"),
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
    (f"{HTTP}{OUTPUT}answers = 7", f"{B}.answers", "7", "an array of tables such as"),
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
    (f"{HTTP}max-merge-points = -1\n{OUTPUT}", f"{L}.max-merge-points", "-1", "an integer from 1"),
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
        elsewhere = {"shard-key", "default-shard", "shard", "epoch"}  # in test_shards
        elsewhere |= {"journal-ca-file", "journal-credentials-file", "journal-lease"}  # in test_shared_journals
        for table in (
            config_keys.CONFIG,
            config_keys.HTTP,
            config_keys.HTTP_OUTPUT,
            config_keys.UDP,
            config_keys.UDP_OUTPUT,
        ):
            for key in table.keys() - {"default-retention-policy"} - elsewhere:
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
