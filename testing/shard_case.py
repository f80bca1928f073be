"""A listener with shards in the test's process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from testing.reloading import ReloadCase
from testing.scripted import LOOPBACK, ScriptedBackend

PLACES = {b"a": "s3", b"b": "s2", b"c": "s1", b"d": "s3", b"e": "s1", b"f": "s2", b"g": "s2"}
"""Where keys belong that are hashed onto s1, s2 and s3 of equal weights."""


def sharded(
    shards: Mapping[str, Sequence[ScriptedBackend | str]],
    *,
    key: str = "tag:t",
    default: str = "",
    listener: str = "",
    output: str = "",
    after: str = "",
) -> str:
    """Return a configuration with a listener that has shards.

    :param shards: the backends of each, or their URLs.
    :param listener: more lines of the listener.
    :param output: more settings of each output.
    :param after: lines behind the shards: weights, epochs.
    """
    lines = [
        'shutdown-timeout = "500ms"',
        "[[http]]",
        'name = "main"',
        f'bind-addr = "{LOOPBACK}:0"',
        f'shard-key = "{key}"',
        listener,
    ]
    if default:
        lines.append(f'default-shard = "{default}"')
    for name, backends in shards.items():
        urls = [each if isinstance(each, str) else each.url for each in backends]
        outputs = ", ".join(
            f'{{ name = "{name}{number}", location = "{url}"{output} }}' for number, url in enumerate(urls)
        )
        lines += ["[[http.shard]]", f'name = "{name}"', f"output = [{outputs}]"]
    return "\n".join([*lines, after])


class ShardCase(ReloadCase):
    """Shards s1, s2 and s3 with a backend each."""

    def setUp(self) -> None:
        """Start the backends."""
        super().setUp()
        self.backends = {name: [self.backend()] for name in ("s1", "s2", "s3")}

    def begin(self, **settings: Any) -> None:
        """Start the relay."""
        self.start(sharded(self.backends, **settings))

    def bodies(self) -> dict[str, bytes]:
        """Return all lines that each shard's backend got, if any."""
        found = {name: b"".join(each.lines for each in one.requests) for name, (one,) in self.backends.items()}
        return {name: body for name, body in found.items() if body}
