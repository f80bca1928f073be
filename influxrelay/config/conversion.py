"""Files of InfluxDB Relay and of its Veepee fork, written in our own keys.

They work as they are. Converted, they mean the same and say it plainly: each output has the URL that writes go to, and
a name of its own; what is ignored or says the default is gone. Comments and order stay.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import tomlkit
from tomlkit.items import InlineTable

from influxrelay.config import schema
from influxrelay.config.document import Place, parse, read, read_text
from influxrelay.config.loader import load
from influxrelay.config.readers import NotAllowed
from influxrelay.config.settings import Config
from influxrelay.config.targets import refuse_another_path, targets
from influxrelay.core.errors import ConfigError

_LISTENERS = {
    "http": (schema.HTTP, schema.HTTP_OUTPUT),
    "udp": (schema.UDP, {**schema.HTTP_OUTPUT, **schema.UDP_OUTPUT}),
    "tcp": (schema.TCP, schema.LINES_OUTPUT),
}
_BUFFER = ("buffer-size-mb", "buffer-full")


@attrs.frozen
class Conversion:
    """A converted file.

    :ivar changes: a line for each, which begins with the key's path.
    """

    text: str
    changes: tuple[str, ...]


def convert(path: str | Path, *, journal: str = "", environment: Mapping[str, str] = os.environ) -> Conversion:
    """Convert a file.

    :param journal: a directory in which each listener that buffers in memory gets a journal instead.
    :raises ConfigError: the relay would not start with the file, for another reason than a key that it does not know.
    """
    place, text = read_text(path)
    parse(place, text, environment, secrets=False)  # which says what is wrong with it
    converter = _Converter(tomlkit.parse(text), lambda text: load(path, environment, secrets=False, text=text))
    converter.remove_what_is_ignored()
    converter.write_urls_out()
    converter.name_outputs()
    if journal:
        converter.replace_buffers(Path(journal))
    converter.space_out()
    converter.config()
    return Conversion(converter.text(), tuple(converter.changes))


def save(text: str, path: Path, *, replace: bool) -> None:
    """Write a file whole; where that fails, an existing one stays as it was.

    :param replace: an existing file is replaced; its mode stays, and so does a link to it.
    :raises OSError:
    """
    path = path.resolve()
    if not replace or not path.is_file():  # a pipe cannot be replaced
        with path.open("w" if replace else "x", encoding="utf-8", newline="") as file:
            file.write(text)
        return
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8", newline="")
        new.chmod(path.stat().st_mode)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


class _Converter:
    def __init__(self, document: Any, read_config: Callable[[str], Config]) -> None:
        self.changes: list[str] = []
        self._document = document
        self._read = read_config

    def text(self) -> str:
        """Return the file as it is now."""
        return tomlkit.dumps(self._document)

    def config(self) -> Config:
        """Return what the file means now.

        :raises ConfigError: nothing.
        """
        return self._read(self.text())

    def _changed(self, path: str, how: str) -> None:
        self.changes.append(f"{path}: {how}")

    def _listeners(self) -> Iterator[tuple[str, int, Any]]:
        for kind in _LISTENERS:
            for index, table in enumerate(self._document.get(kind, ())):
                yield kind, index, table

    def _outputs(self) -> Iterator[tuple[str, str, int, int, Any]]:
        for kind, index, listener in self._listeners():
            for number, output in enumerate(listener.get("output", ())):
                yield f"{kind}[{index}].output[{number}]", kind, index, number, output

    # -- what is ignored

    def remove_what_is_ignored(self) -> None:
        """Remove keys that are not known, have no effect, or ask for the default."""
        self._clean("", self._document, schema.CONFIG)
        for kind, index, listener in self._listeners():
            keys, output_keys = _LISTENERS[kind]
            self._clean(f"{kind}[{index}].", listener, keys)
            for number, output in enumerate(listener.get("output", ())):
                at = f"{kind}[{index}].output[{number}]."
                self._clean(at, output, output_keys)
                if isinstance(output.get("endpoints"), dict):
                    self._clean(f"{at}endpoints.", output["endpoints"], schema.ENDPOINTS)
        for index, each in enumerate(self._document.get("filter", ())):
            self._clean(f"filter[{index}].", each, schema.FILTER)
            if "type" in each:
                del each["type"]
                self._changed(f"filter[{index}].type", "removed, since it has no effect")

    def _clean(self, at: str, table: Any, keys: schema.Keys) -> None:
        for key in list(table):
            if key not in keys:
                del table[key]
                self._changed(f"{at}{key}", "removed, since nothing knows this key")
            elif table[key] in ("", 0) and _means_default(keys[key], tomlkit.item(table[key]).unwrap()):
                del table[key]
                self._changed(f"{at}{key}", "removed, since it asks for the default")

    # -- endpoints

    def write_urls_out(self) -> None:
        """Write the URL of writes into each location, and leave only endpoints that are elsewhere than expected."""
        for at, _, _, _, output in self._outputs():
            endpoints = output.get("endpoints")
            if endpoints is None or "write" not in endpoints or output.get("type", "influxdb") != "influxdb":
                continue
            found = _written_out(output)
            if found is None:
                continue
            location, kept = found
            output["location"] = location
            for key in [each for each in endpoints if each not in kept]:
                del endpoints[key]
            if not endpoints:
                del output["endpoints"]
            rest = f", endpoints: {', '.join(kept)} left" if kept else ", endpoints removed"
            self._changed(f"{at}.location", f"is now the URL for writes{rest}")

    # -- names

    def name_outputs(self) -> None:
        """Give outputs that share a name those that the relay gives them, also where filters name them."""
        config = self.config()
        shared: dict[str, list[str]] = {}
        for at, kind, index, number, output in self._outputs():
            name = getattr(config, kind)[index].outputs[number].name
            if "name" in output and "$" not in output["name"]:
                shared.setdefault(output["name"], []).append(name)
                if output["name"] != name:
                    self._changed(f"{at}.name", f'is now "{name}", since "{output["name"]}" has several outputs')
                    output["name"] = name
        for index, each in enumerate(self._document.get("filter", ())):
            names = each.get("outputs", [])
            new = [name for old in names for name in dict.fromkeys(shared.get(old, [old]))]
            if new != list(names):
                each["outputs"] = new
                self._changed(f"filter[{index}].outputs", "has the new names")

    # -- journals

    def replace_buffers(self, directory: Path) -> None:
        """Give each listener that buffers in memory a journal instead."""
        config = self.config()
        for kind, index, listener in self._listeners():
            outputs = listener.get("output", ())
            if "journal" in listener or not any(output.get("buffer-size-mb") for output in outputs):
                continue
            if any(isinstance(each.get("location"), str) and "://" not in each["location"] for each in outputs):
                continue  # datagrams are not journaled
            for number, output in enumerate(outputs):
                for key in _BUFFER:
                    if key in output:
                        del output[key]
                        self._changed(
                            f"{kind}[{index}].output[{number}].{key}", "removed, since the journal keeps more"
                        )
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", getattr(config, kind)[index].name).strip("-.")
            listener["journal"] = str(directory / (name or f"{kind}-{index}"))
            self._changed(f"{kind}[{index}].journal", f'added: "{listener["journal"]}"')

    # -- white space

    def space_out(self) -> None:
        """Write inline tables anew that something was removed from."""
        for at, kind, index, number, output in self._outputs():
            if any(each.startswith(f"{at}.") for each in self.changes):
                if isinstance(output.get("endpoints"), InlineTable):
                    output["endpoints"] = _written_anew(output["endpoints"])
                if isinstance(output, InlineTable):
                    self._document[kind][index]["output"][number] = _written_anew(output)


def _written_anew(table: Any) -> Any:
    """Return an inline table in the usual spacing, which what was removed has left uneven."""
    pairs = ", ".join(f"{tomlkit.key(key).as_string()} = {value.as_string()}" for key, value in table.items())
    return tomlkit.parse(f"table = {{ {pairs} }}")["table"]


def _means_default(read_value: Callable[[object], Any], value: object) -> bool:
    try:
        return read_value(value) is None
    except (NotAllowed, ConfigError):
        return False


def _written_out(output: Any) -> tuple[str, list[str]] | None:
    """Return a location that has the path of writes, and the endpoints that are still needed; None if there is none."""
    location, endpoints = str(output.get("location", "")), {key: str(each) for key, each in output["endpoints"].items()}
    if "$" in location or any("$" in each for each in endpoints.values()):
        return None
    api = str(output.get("api", "v1"))
    place = Place("")
    query = urlsplit(location).query
    try:
        before = targets(urlsplit(location), read(place, endpoints, schema.ENDPOINTS), api)
        new = before["write_url"] + (f"?{query}" if query else "")
        refuse_another_path(place, api, urlsplit(new))
    except (ConfigError, ValueError):
        return None
    kept = {key: each for key, each in endpoints.items() if key != "write"}

    def same(rest: Mapping[str, str]) -> bool:
        return targets(urlsplit(new), read(place, dict(rest), schema.ENDPOINTS), api) == before

    for key in list(kept):
        rest = {name: each for name, each in kept.items() if name != key}
        if same(rest):
            kept = rest
    return (new, list(kept)) if same(kept) else None
