"""A connection of nats-py's client to one server, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any

from influxrelay.journal.shared.credentials import Credentials
from influxrelay.journal.shared.interface import Unfit

_ANSWER = 2.0  # seconds for a server to answer; a frozen one accepts connections and says nothing
_PING = 1.0  # seconds; after two without an answer the server is given up


async def dial(
    server: str, name: str, tls: ssl.SSLContext | None, credentials: Credentials, on_lost: Callable[[], None]
) -> Any:
    """Return a client that is connected to a server.

    :param name: what the server is to call it.
    :param on_lost: called when the connection is gone, unless that cannot be seen.
    :raises Exception: there is no connection; of several kinds, for :func:`explained`.
    """
    from nats.aio.client import Client  # noqa: PLC0415 (only who shares a journal needs it)

    client = Client()
    errors: list[Exception] = []

    async def failed(error: Exception) -> None:
        errors.append(error)

    async def closed() -> None:
        on_lost()

    try:
        connecting = asyncio.ensure_future(
            client.connect(
                servers=[f"{'tls' if tls else 'nats'}://{server}"],
                error_cb=failed,
                closed_cb=closed,
                name=name,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=_ANSWER,  # type: ignore[arg-type] # a float is as good
                ping_interval=_PING,  # type: ignore[arg-type] # as above
                max_outstanding_pings=2,
                pending_size=0,
                **_shown(client, tls, credentials),
            )
        )
        connecting.add_done_callback(_retrieve)
        await asyncio.wait_for(connecting, 2 * _ANSWER)
        _refuse_clear_text(client, tls)
    except BaseException as error:
        asyncio.get_running_loop().create_task(leave(client))
        if errors and type(error).__name__ == "NoServersError":
            raise errors[-1] from None
        raise
    return client


def _retrieve(connecting: asyncio.Future[Any]) -> None:
    """Look at what went wrong also if nobody waits for it any more, or asyncio logs it."""
    if not connecting.cancelled():
        connecting.exception()


def _shown(client: Any, tls: ssl.SSLContext | None, credentials: Credentials) -> dict[str, Any]:
    options: dict[str, Any] = {"tls": tls} if tls else {}
    if credentials.seed:
        client._public_nkey = credentials.public_key  # noqa: SLF001 (else it wants another library for the seed)
        options["signature_cb"] = credentials.sign
        if credentials.jwt:
            options["user_jwt_cb"] = credentials.jwt.encode
    if credentials.user:

        def password() -> str:
            _refuse_clear_text(client, tls)
            return credentials.password

        options.update(user=credentials.user, password=password)
    return options


def _refuse_clear_text(client: Any, tls: ssl.SSLContext | None) -> None:
    """Refuse a server without TLS, with which nats-py goes on in clear text."""
    if tls and not client._server_info.get("tls_required"):  # noqa: SLF001 (there is no public way)
        raise Unfit("the server does not ask for TLS")


def nats_error() -> type[Exception]:
    """Return the root of nats-py's errors."""
    from nats.errors import Error  # noqa: PLC0415 (as above)

    return Error


def explained(error: BaseException) -> str:
    """Return an error in a few words."""
    text = str(error).removeprefix("nats: ").strip("'\" ")
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    return text or type(error).__name__


async def leave(client: Any) -> None:
    """End a client, whatever state it is in; never fails."""
    with contextlib.suppress(Exception):
        await asyncio.wait_for(client.close(), _ANSWER)
    if client._transport:  # noqa: SLF001 (a frozen server takes nothing more, and so the client never ends)
        with contextlib.suppress(Exception):
            client._transport._io_writer.transport.abort()  # noqa: SLF001 (as above)
