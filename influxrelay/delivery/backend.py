"""What a sender asks of the transport to its backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from influxrelay.core.write import Reply, Write
from influxrelay.delivery.connection_pool import Gate


class Backend(Protocol):
    """The transport to one backend: it sends, and knows nothing of order or retry.

    :ivar timeout: seconds that an exchange may take.
    """

    timeout: float

    def post(self, write: Write, body_parts: Sequence[bytes]) -> Deferred[Reply]:
        """Send a body, given in parts, to where ``write`` goes.

        The Deferred fires with an answer of any final status, or fails with
        :class:`influxrelay.core.errors.BackendFailure` where there was none. A request may wait for a connection first.
        A statement may take longer than the timeout, as long as the server lives.
        """

    def create_database(self, write: Write) -> Deferred[Reply]:
        """Create the database that ``write`` goes to, or those that it names if it is a statement.

        Fires and fails as :meth:`post` does.
        """

    def ping(self) -> Deferred[Reply]:
        """Ask whether the server lives; fires and fails as :meth:`post` does, within a time of its own."""

    def guard(self, gate: Gate) -> None:
        """Send no write and no change if this says so directly before its bytes: fail with the reason ``not ours``."""

    def abort_writes(self) -> None:
        """Fail the writes and changes in flight."""

    def abort_changes(self) -> None:
        """Fail the statements in flight: the server does not live."""

    def abort(self) -> None:
        """Fail what is in flight."""

    def close(self) -> Deferred[None]:
        """Close the connections that are idle."""

    def does_the_same(self, other: Backend) -> bool:
        """Tell whether another transport sends the same in the same way, whatever its name."""

    def retire(self) -> None:
        """Close each connection as soon as it is idle: there will be no more requests."""

    def is_busy(self) -> bool:
        """Tell whether a request is under way."""
