"""What may come of a query over shards instead of a result.

::

    Exception
    └── Unanswered
        ├── Refused          the result could differ from what one server would say
        ├── StatementError   what InfluxDB says of the statement instead of a result
        └── ShardFailed      a shard answers with an HTTP status of its own, or not at all
"""

from __future__ import annotations

import json

from influxrelay.core.write import Reply


class Unanswered(Exception):
    """There is no result."""


class Refused(Unanswered):
    """The result could differ from that of one server with all the data; the text says why, and what would do."""


class StatementError(Unanswered):
    """What InfluxDB says of a statement instead of a result."""


class ShardFailed(Unanswered):
    """A shard has answered with a status other than 200, or not at all.

    :ivar reply: for the client.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(_message(reply))
        self.reply = reply


def _message(reply: Reply) -> str:
    try:
        return str(json.loads(reply.body)["error"])
    except (ValueError, TypeError, KeyError):
        return f"a backend answered {reply.status}"
