"""Which of the backends of today is which of yesterday's."""

from __future__ import annotations

from collections.abc import Mapping


def find_again(
    known: Mapping[str, str], backends: Mapping[str, str], live: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return by which name each backend was known before, if it was: by the location first, then by the name.

    :param live: of which of them it is certain.
    """
    before = dict(live or {})
    for name, location in backends.items():
        if known.get(name) == location and name not in before and name not in before.values():
            before[name] = name
    for name, location in backends.items():
        if name not in before:
            old = next((old for old in known if known[old] == location and old not in before.values()), None)
            if old is not None:
                before[name] = old
    for name in backends:
        if name not in before and name in known and name not in before.values():
            before[name] = name
    return before
