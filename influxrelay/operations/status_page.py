"""Serves the page for people, and gathers what it and ``influxrelay top`` show beyond ``/status``."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import globalLogPublisher
from twisted.web.resource import Resource

from influxrelay.core.errors import JournalError
from influxrelay.core.write import Reply
from influxrelay.http.request import Request
from influxrelay.operations.commands import chosen
from influxrelay.operations.dead_letters import oldest_letters
from influxrelay.operations.health import Examiner
from influxrelay.operations.history import History
from influxrelay.operations.overview import Facts
from influxrelay.operations.page import render
from influxrelay.operations.recent_log import RecentLog
from influxrelay.operations.resources import QuestionResource
from influxrelay.operations.targets import Listener

_LETTERS = 5  # that are shown
_POLICY = (
    b"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:;"
    b" base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"Cache-Control", b"no-store"),
    (b"Content-Security-Policy", _POLICY),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"no-referrer"),
)
_FILES = {b"page.css": b"text/css; charset=utf-8", b"page.js": b"text/javascript; charset=utf-8"}


class StatusPage(Service):
    """The page at ``/`` of the admin listener; while it runs, it remembers the last hour, and the log's last warnings.

    :param ask: returns what ``/status`` shows.
    :param listeners: the relay's, as they are now.
    :ivar history: what it remembers of the queues.
    """

    def __init__(
        self,
        examiner: Examiner,
        ask: Callable[[], Awaitable[dict[str, Any]]],
        listeners: Callable[[], Sequence[Listener]],
        reactor: IReactorTime,
    ) -> None:
        self._examiner = examiner
        self._ask = ask
        self._listeners = listeners
        self.history = History(ask, reactor)
        self._log_lines = RecentLog()

    def serve(self, root: Resource) -> None:
        """Let a site answer with the page."""

        async def page(_: Request) -> Reply:
            return _reply(b"text/html; charset=utf-8", await self._render())

        root.putChild(b"", QuestionResource(page))
        for name, media_type in _FILES.items():
            root.putChild(name, _file(name.decode(), media_type))

    async def _render(self) -> bytes:
        return await render(await self._facts())

    async def overview(self, listener: str) -> dict[str, Any]:
        """Return what ``influxrelay top`` shows.

        :param listener: only this one; empty for all.
        :raises Refused: there is no such listener.
        """
        chosen(self._listeners(), listener)
        return (await self._facts()).show(listener)

    async def _facts(self) -> Facts:
        status = await self._ask()
        health = await self._examiner.health()
        try:
            letters = await oldest_letters(self._listeners(), _LETTERS)
        except JournalError:  # the page says what is wrong with the disk
            letters = []
        return Facts(status, health, self.history, letters, tuple(self._log_lines.lines), time.time())

    def startService(self) -> None:
        """Begin to remember."""
        super().startService()
        globalLogPublisher.addObserver(self._log_lines)
        self.history.startService()

    def stopService(self) -> None:
        """Remember nothing new."""
        super().stopService()
        self.history.stopService()
        globalLogPublisher.removeObserver(self._log_lines)


def _file(name: str, media_type: bytes) -> QuestionResource:
    content = files("influxrelay.operations").joinpath(name).read_bytes()

    async def answer(_: Request) -> Reply:
        return _reply(media_type, content)

    return QuestionResource(answer)


def _reply(media_type: bytes, body: bytes) -> Reply:
    return Reply(200, ((b"Content-Type", media_type), *_HEADERS), body)
