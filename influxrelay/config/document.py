"""A TOML document with a place for every value, so that an error names the file and the key's path.

A string may contain environment variables, ``"${NAME}"``; ``"$${NAME}"`` is a literal ``${NAME}``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import tomlkit
from tomlkit.exceptions import TOMLKitError

from influxrelay.config import schema
from influxrelay.config.readers import NotAllowed, Substituted, kind, shortened, shown
from influxrelay.config.schema import Keys
from influxrelay.core.errors import ConfigError

T = TypeVar("T")
Table = dict[str, Any]

_VARIABLE = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@attrs.frozen
class Place:
    """A key's place in a file, such as ``http[0].output[1].timeout``; the path is empty for the file itself."""

    file: str
    path: str = ""

    def __truediv__(self, key: str) -> Place:
        return Place(self.file, f"{self.path}.{_shown_key(key)}".lstrip("."))

    def __getitem__(self, index: int) -> Place:
        return Place(self.file, f"{self.path}[{index}]")

    def __str__(self) -> str:
        return f"{self.file}: {self.path}" if self.path else self.file

    def error(self, message: str) -> ConfigError:
        """Return an error that begins with this place."""
        return ConfigError(f"{self}: {message}")


def _shown_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else shortened(repr(key))


def read_text(path: str | Path) -> tuple[Place, str]:
    """Read a file.

    :raises ConfigError: it cannot be read.
    """
    place = Place(str(path) if str(path).isprintable() else repr(str(path)))
    try:
        return place, Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise place.error(f"not UTF-8 (byte {error.start}); a configuration is TOML in UTF-8") from None
    except (OSError, ValueError) as error:
        raise place.error(f"cannot read the file: {getattr(error, 'strerror', error)}") from None


def parse(place: Place, text: str, environment: Mapping[str, str], *, secrets: bool) -> Table:
    """Parse a file's text and substitute the environment variables in its strings.

    :param secrets: whether a variable that a secret names must be set; else such a secret stays as it is written.
    :raises ConfigError: it is not TOML, or names a variable that is not set.
    """
    try:
        table = tomlkit.parse(text).unwrap()
    except (TOMLKitError, ValueError) as error:
        raise place.error(f"not valid TOML: {' '.join(str(error).split()).rstrip('.')}") from None
    substituted: Table = _substitute(place, table, environment, lenient=() if secrets else schema.HIDDEN)
    return substituted


def _substitute(place: Place, value: Any, environment: Mapping[str, str], lenient: Iterable[str], key: str = "") -> Any:
    if isinstance(value, dict):
        return {
            name: _substitute(place / name, each, environment, lenient, key if key in lenient else name)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_substitute(place[index], each, environment, lenient, key) for index, each in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def content(found: re.Match[str]) -> str:
        dollar, name = found.groups()
        if dollar:
            return found[0][1:]
        if name not in environment and key not in lenient:
            raise place.error(f"the environment variable {name} is not set")
        return environment.get(name, found[0])

    return Substituted(_VARIABLE.sub(content, value), value)


def read(place: Place, table: Table, keys: Keys, *required: str) -> Table:
    """Return the attributes that a table sets, leaving out those that ask for the default."""
    for key in table:
        if key not in keys:
            near = difflib.get_close_matches(key.lower().replace("_", "-"), keys, n=1)
            hint = f' (did you mean "{near[0]}"?)' if near else ""
            raise (place / key).error(f"unknown key{hint}; allowed: {', '.join(keys)}")
    given = {**dict.fromkeys(required), **table}
    values = {key: _value(place / key, keys[key], value, secret=key in schema.HIDDEN) for key, value in given.items()}
    return {
        schema.ATTRIBUTES.get(key, key.replace("-", "_")): value for key, value in values.items() if value is not None
    }


def _value(place: Place, reader: Callable[[object], T], value: object, *, secret: bool) -> T:
    try:
        return reader(value)
    except NotAllowed as error:
        if value is None:
            raise place.error(f"missing; allowed: {error.allowed}") from None
        found = kind(value) if secret else shown(value)
        reason = f" ({error.reason})" if error.reason else ""
        raise place.error(f"found {found}{reason}; allowed: {error.allowed}") from None


def read_each(place: Place, tables: Sequence[Table], reader: Callable[[Place, Table], T]) -> tuple[T, ...]:
    """Read each table of an array."""
    return tuple(reader(place[index], table) for index, table in enumerate(tables))


def refuse_duplicates(key: str, rule: str, values: Iterable[tuple[Place, str | None, object]]) -> None:
    """Refuse two places with the same value of a key.

    :param rule: what must be unique, for the error.
    :param values: for each place what is shown and what is compared; None is equal to nothing.
    """
    seen: dict[object, Place] = {}
    for place, written, compared in values:
        if compared is not None and compared in seen:
            found = f'duplicate {key} "{shortened(str(written))}" (also {seen[compared].path})'
            raise (place / key).error(f"{found}; {rule}")
        seen[compared] = place
