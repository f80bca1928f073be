"""The configuration file: TOML in, frozen values out, or one line that says what is wrong with it.

The keys are those of InfluxDB Relay (its ``relay/config.go``), of the Veepee fork (its ``config/config.go``) and our
own; ``etc/relay.toml`` explains each, and :mod:`influxrelay.config.schema` lists them with the readers of their values.
As in both originals an empty string, or a 0 where 0 makes no sense, stands for the default.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult

import attrs
import tomlkit
from tomlkit.exceptions import TOMLKitError

from influxrelay.config import readers
from influxrelay.config import schema as config_keys
from influxrelay.config.readers import NotAllowed, kind, shortened, shown
from influxrelay.config.schema import Keys
from influxrelay.config.settings import (
    AdminConfig,
    Config,
    FilterConfig,
    HTTPListenerConfig,
    HTTPOutputConfig,
    JournalConfig,
    UDPListenerConfig,
    UDPOutputConfig,
)
from influxrelay.core.errors import ConfigError

_T = TypeVar("_T")
_Listener = TypeVar("_Listener", bound=HTTPListenerConfig | UDPListenerConfig)
_Output = TypeVar("_Output", bound=HTTPOutputConfig | UDPOutputConfig)
_Table = dict[str, Any]


def load(path: str | Path) -> Config:
    """Read a configuration file, and the secrets it points to.

    Relative paths in it are seen from the working directory.

    :raises ConfigError: with one line: the file, the key's path (``http[0].output[1].timeout``), what was found and
        what is allowed.
    """
    place = _Place(_printable(str(path)))
    fields = _read(place, _toml(place, path), config_keys.CONFIG)
    http = _each(place / "http", fields.pop("http", []), _http_listener)
    udp = _each(place / "udp", fields.pop("udp", []), _udp_listener)
    if not http and not udp:
        raise (place / "http").error("no listener", "at least one [[http]] or [[udp]]")
    _unique("name", [*_marks(place / "http", http, _name), *_marks(place / "udp", udp, _name)])
    fields["admin"] = admin = _admin(place / "admin", fields["admin"]) if "admin" in fields else None
    ports = _marks(place / "http", http, _http_port)
    _unique("bind-addr", [*ports, (place / "admin", _http_port(admin))] if admin else ports)
    _unique("bind-addr", _marks(place / "udp", udp, lambda listener: _port((listener.host, listener.port))))
    _unique("journal", [*_marks(place / "http", http, _journal_path), *_marks(place / "udp", udp, _journal_path)])
    if "filter" in fields:
        outputs = [output.name for listeners in (http, udp) for listener in listeners for output in listener.outputs]
        filters = _each(place / "filter", fields.pop("filter"), lambda at, table: _filter(at, table, outputs))
        http, udp = _with_filters(http, filters), _with_filters(udp, filters)
    return Config(path=str(path), http=http, udp=udp, **fields)


# Errors


@attrs.frozen
class _Place:
    """Where in which file something stands."""

    file: str
    path: str = ""

    def __truediv__(self, key: str) -> _Place:
        return _Place(self.file, f"{self.path}.{_shown_key(key)}".lstrip("."))

    def __getitem__(self, index: int) -> _Place:
        return _Place(self.file, f"{self.path}[{index}]")

    def error(self, found: str, allowed: str) -> ConfigError:
        where = f"{self.file}: {self.path}" if self.path else self.file
        return ConfigError(f"{where}: found {found}; allowed: {allowed}")


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)


def _shown_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else shortened(repr(key))


# Tables


def _toml(place: _Place, path: str | Path) -> _Table:
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise place.error(f"a byte that is not UTF-8 at offset {error.start}", "TOML in UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise place.error(f"a file that cannot be read ({reason})", "a readable TOML file") from None
    try:
        return tomlkit.parse(text).unwrap()
    except (TOMLKitError, ValueError) as error:
        raise place.error(f"bad TOML ({' '.join(str(error).split())})", "TOML 1.0") from None


def _read(place: _Place, table: _Table, keys: Keys, *required: str) -> _Table:
    """Return the attributes that a table sets, without those for which it asks for the default."""
    for key in table:
        at = place / key
        if key not in keys:
            raise at.error(f"an unknown key{_nearest(key, keys)}", f"the keys {', '.join(keys)}")
    given = {**dict.fromkeys(required), **table}
    values = {
        key: _value(place / key, keys[key], value, secret=key in config_keys.HIDDEN) for key, value in given.items()
    }
    return {
        config_keys.ATTRIBUTES.get(key, key.replace("-", "_")): value
        for key, value in values.items()
        if value is not None
    }


def _nearest(key: str, keys: Iterable[str]) -> str:
    near = difflib.get_close_matches(key.lower().replace("_", "-"), keys, n=1)
    return f' (did you mean "{near[0]}"?)' if near else ""


def _value(place: _Place, read: Callable[[object], _T], value: object, *, secret: bool) -> _T:
    try:
        return read(value)
    except NotAllowed as error:
        found = error.found or (kind(value) if secret else shown(value))
        raise place.error(found, error.allowed) from None


def _each(place: _Place, tables: list[_Table], read: Callable[[_Place, _Table], _T]) -> tuple[_T, ...]:
    return tuple(read(place[index], table) for index, table in enumerate(tables))


def _marks(place: _Place, values: Iterable[_T], of: Callable[[_T], object]) -> list[tuple[_Place, object]]:
    return [(place[index], of(value)) for index, value in enumerate(values)]


def _unique(key: str, marks: list[tuple[_Place, object]]) -> None:
    """Refuse the second of two places with the same mark; None marks nothing."""
    seen: dict[object, _Place] = {}
    for place, mark in marks:
        if mark is not None and mark in seen:
            raise (place / key).error(f"the {key} of {seen[mark].path} again", f"a {key} of its own")
        seen[mark] = place


def _name(value: HTTPListenerConfig | UDPListenerConfig | HTTPOutputConfig | UDPOutputConfig) -> str:
    return value.name


def _journal_path(listener: HTTPListenerConfig | UDPListenerConfig) -> str | None:
    return os.path.realpath(listener.journal.directory) if listener.journal else None


def _http_port(listener: HTTPListenerConfig | AdminConfig) -> object:
    return _port(readers.bind_address_or_endpoint(listener.bind_addr))


def _port(bound: str | tuple[str, int]) -> object:
    """Return what no two listeners can have; None for a port that the system chooses."""
    if isinstance(bound, str):
        return bound
    host, port = bound
    return (host or "0.0.0.0", port) if port else None  # noqa: S104 (compared, not bound)


# Listeners and outputs


def _http_listener(place: _Place, table: _Table) -> HTTPListenerConfig:
    fields = _read(place, table, config_keys.HTTP, "bind-addr")
    bound, pem = fields.pop("bind_addr"), fields.pop("ssl_combined_pem", "")
    if isinstance(bound, str):
        if pem:
            raise (place / "ssl-combined-pem").error(
                "a PEM file beside an endpoint string", "one of the two: an ssl: endpoint names its own files"
            )
        default_name = bound
    else:
        default_name = f"http{'s' if pem else ''}://{table['bind-addr']}"  # as in InfluxDB Relay's relay/http.go
    fields["name"] = fields.get("name", default_name)
    fields["journal"] = journal = _choose_journal(place, table, fields)
    fields["outputs"] = _outputs(place / "output", fields.pop("output", []), _http_output, journal)
    listener = HTTPListenerConfig(bind_addr=table["bind-addr"], endpoint=_endpoint(bound, pem), **fields)
    outputs = tuple(attrs.evolve(each, health_timeout=listener.health_timeout) for each in listener.outputs)
    return attrs.evolve(listener, outputs=outputs)


def _admin(place: _Place, table: _Table) -> AdminConfig:
    given = table.get("bind-addr") or config_keys.ADMIN_ADDRESS
    bound = _read(place, {**table, "bind-addr": given}, config_keys.ADMIN)["bind_addr"]
    return AdminConfig(bind_addr=given, endpoint=_endpoint(bound, ""))


def _udp_listener(place: _Place, table: _Table) -> UDPListenerConfig:
    fields = _read(place, table, config_keys.UDP, "bind-addr")
    host, port = fields.pop("bind_addr")
    fields["name"] = fields.get("name", table["bind-addr"])
    fields["journal"] = journal = _choose_journal(place, table, fields)
    fields["outputs"] = outputs = _outputs(place / "output", fields.pop("output", []), _udp_output, journal)
    if journal:
        _refuse_unlike_outputs(place / "output", outputs)
    return UDPListenerConfig(bind_addr=table["bind-addr"], host=host, port=port, **fields)


def _choose_journal(place: _Place, table: _Table, fields: _Table) -> JournalConfig | None:
    """Make one value of a journal's settings; an empty directory switches them all off."""
    _need(place, table, "journal", '"DIRECTORY"', *config_keys.JOURNAL)
    directory = fields.pop("journal", None)
    names = [name for name in fields if name.startswith("journal_")]
    settings = {name.removeprefix("journal_"): fields.pop(name) for name in names}
    return JournalConfig(directory, **settings) if directory else None


def _need(place: _Place, table: _Table, key: str, value: str, *dependents: str) -> None:
    """Refuse settings of what the table does not mention."""
    for dependent in dependents:
        if dependent in table and key not in table:
            raise (place / dependent).error(f"no {key} beside it", f"{key} = {value} with it, or leaving it out")


def _refuse_unlike_outputs(place: _Place, outputs: Iterable[UDPOutputConfig | HTTPOutputConfig]) -> None:
    """Refuse outputs that cannot share a journal of datagrams: each batch is kept once, for all of them."""
    query = None
    for index, output in enumerate(outputs):
        at = place[index] / "location"
        if isinstance(output, UDPOutputConfig):
            raise at.error(
                "host:port under a journal", "URLs with a database (no answer tells what became of a datagram)"
            )
        if query not in (None, output.query):
            raise at.error(f"another query than {place[0].path} has", "the same query in all outputs under a journal")
        query = output.query


def _outputs(
    place: _Place, tables: list[_Table], read: Callable[[_Place, _Table], _Output], journal: JournalConfig | None
) -> tuple[_Output, ...]:
    if not tables:
        raise place.error("no output", "at least one")
    outputs = _each(place, tables, read)
    _unique("name", _marks(place, outputs, _name))
    for index, output in enumerate(outputs):
        if isinstance(output, HTTPOutputConfig) and output.create_databases and not (journal or output.buffer_size_mb):
            at = place[index] / "create-databases"
            raise at.error("true without a queue", "a journal or a buffer-size-mb above 0 with it, or false")
    return outputs


def _filter(place: _Place, table: _Table, outputs: list[str]) -> FilterConfig:
    fields = _read(place, table, config_keys.FILTER, "outputs")
    for index, name in enumerate(fields["outputs"]):
        if name not in outputs:
            at = (place / "outputs")[index]
            raise at.error(
                f"{shown(name)}, which no output is named", f"the outputs {', '.join(dict.fromkeys(outputs))}"
            )
    return FilterConfig(**fields)


def _with_filters(listeners: tuple[_Listener, ...], filters: Sequence[FilterConfig]) -> tuple[_Listener, ...]:
    """Give each output the filters that name it."""

    def filtered(listener: _Listener) -> _Listener:
        outputs: Any = tuple(
            attrs.evolve(output, filters=tuple(each for each in filters if output.name in each.outputs))
            for output in listener.outputs
        )
        return attrs.evolve(listener, outputs=outputs)

    return tuple(map(filtered, listeners))


def _udp_output(place: _Place, table: _Table) -> UDPOutputConfig | HTTPOutputConfig:
    location = table.get("location")
    if isinstance(location, str) and re.match(r"(?i)https?:", location):
        return _http_output(place, table, config_keys.HTTP_OUTPUT | {"location": readers.url_with_db})
    fields = _read(place, table, config_keys.UDP_OUTPUT, "location")
    host, port = fields.pop("location")
    fields["name"] = fields.get("name", location)
    return UDPOutputConfig(location=table["location"], host=host, port=port, **fields)


def _http_output(place: _Place, table: _Table, keys: Keys | None = None) -> HTTPOutputConfig:
    fields = _read(place, table, keys or config_keys.HTTP_OUTPUT, "location")
    _need(place, table, "buffer-size-mb", "MEGABYTES", "buffer-full")
    url: SplitResult = fields.pop("location")
    endpoints = _read(place / "endpoints", fields.pop("endpoints", {}), config_keys.ENDPOINTS)
    _choose_credentials(place, fields)
    fields["name"] = fields.get("name", table["location"])
    return HTTPOutputConfig(location=table["location"], query=url.query, **_targets(url, endpoints), **fields)


def _targets(url: SplitResult, endpoints: dict[str, str]) -> _Table:
    """Return an output's URLs.

    The location is the base of the endpoints if one of them is ``write`` (the Veepee fork) or its path is empty or ends
    in a slash; else it is the write URL (InfluxDB Relay), and the base is what precedes its last segment.
    """
    base, _, segment = url.path.rpartition("/")
    if "write" in endpoints:
        base, segment = url.path, endpoints["write"]

    def join(endpoint: str) -> str:
        return f"{url.scheme}://{url.netloc}{base}".rstrip("/") + f"/{endpoint}"

    write = join(segment or "write")
    return {
        "write_url": write,
        "write_prom_url": join(endpoints["write_prom"]) if "write_prom" in endpoints else None,
        "ping_url": join(endpoints["ping"]) if "ping" in endpoints else f"{write.rstrip('/').rpartition('/')[0]}/ping",
    }


def _choose_credentials(place: _Place, fields: _Table) -> None:
    """Put what the secrets' files hold in its place, and refuse what does not go together."""
    for key in config_keys.SECRETS:
        if (content := fields.pop(f"{key}_file", None)) is not None:
            if key in fields:
                raise (place / f"{key}-file").error(f"a {key} beside it", "one of the two")
            fields[key] = content
    if "token" in fields and ("username" in fields or "password" in fields):
        raise (place / "token").error("a username or password beside it", "a token, or a username with a password")
    if "password" in fields and "username" not in fields:
        raise (place / "username").error("nothing beside a password", "a username with a password")
    if "username" in fields and "password" not in fields:
        raise (place / "username").error("no password beside it", "a username with password or password-file")


def _endpoint(bound: str | tuple[str, int], pem: str) -> str:
    """Return the string for Twisted's ``serverFromString``."""
    if isinstance(bound, str):
        return bound
    host, port = bound
    interface = [f"interface={_quoted(host)}"] if host else []
    if not pem:
        return ":".join(["tcp6" if ":" in host else "tcp", str(port), *interface])
    files = [f"{option}={_quoted(pem)}" for option in ("privateKey", "certKey", *_chain(pem))]
    return ":".join(["ssl", str(port), *interface, *files])


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")


def _chain(pem: str) -> list[str]:
    """Return the option that lets Twisted serve intermediate certificates too, as Go does, if the file has some."""
    content = Path(pem).read_bytes()
    more = content.isascii() and content.count(b"-----BEGIN CERTIFICATE-----\n") > 1  # Twisted reads no others
    return ["extraCertChain"] if more else []
