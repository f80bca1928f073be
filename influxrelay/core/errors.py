"""Everything that influxrelay raises on purpose.

::

    InfluxRelayError
    ├── ConfigError        the configuration file; its text is one line for the operator
    ├── StartError         the relay cannot start; leaves the process with one line and a non-zero code
    ├── ListenError        a port cannot be had; its text is one line for the operator
    ├── JournalError       a journal that must not be opened: in use, or of a later version
    ├── InvalidRequest     a client's request is refused before any backend is asked
    └── BackendFailure     one backend did not take a write: a reason, and its answer if there was one
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from influxrelay.core.write import Reply


class InfluxRelayError(Exception):
    """The root of the tree."""


class ConfigError(InfluxRelayError):
    """A configuration that cannot be used.

    ``str()`` is one line: the file, the key's path, what was found and what is allowed.
    """


class StartError(SystemExit, InfluxRelayError):
    """The relay cannot start, for the reason that ``str()`` tells in one line.

    It is a SystemExit so that it ends the process without a traceback, and an Exception so that twistd passes the line
    on from a daemon to the terminal.
    """

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.code = 1  # the line itself would be printed to wherever twistd has turned stderr


class ListenError(InfluxRelayError):
    """A port that cannot be had; ``str()`` is one line for the operator."""


class JournalError(InfluxRelayError):
    """A journal that must not be opened; ``str()`` is one line for the operator."""


class InvalidRequest(InfluxRelayError):
    """A request that is answered with an error of our own, before any backend is asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


class BackendFailure(InfluxRelayError):
    """One backend did not take a write, and another one still may.

    :ivar reason: a short fixed word, fit for a counter's label: ``refused``, ``timeout``, ``reset``, ...
    :ivar detail: what happened, for the log; never a secret.
    :ivar reply: the backend's answer (5xx, 408, 425, 429), or None where there was none that a client may see.
    """

    def __init__(self, reason: str, detail: str, reply: Reply | None = None) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.reply = reply
