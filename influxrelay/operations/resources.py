"""What answers load balancers and operators: ``/health`` and what is below it, ``/ready``, ``/status``."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.web.resource import Resource

from influxrelay.core.replies import json_error
from influxrelay.core.text import text
from influxrelay.core.write import Reply
from influxrelay.http.refusals import method_not_allowed
from influxrelay.http.request import Request
from influxrelay.http.site import RelaySite
from influxrelay.operations.health import Examiner, Health

BACKENDS = b"/health/backends/"
_HEADERS = ((b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store"))


def json_reply(status: int, shown: Any) -> Reply:
    """Return an answer in JSON."""
    return Reply(status, _HEADERS, json.dumps(shown, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


class QuestionResource(Resource):
    """Answers GET and HEAD with what a coroutine finds out.

    :param ask: is told the request, and returns the answer.
    """

    isLeaf = True

    def __init__(self, ask: Callable[[Request], Awaitable[Reply]]) -> None:
        super().__init__()
        self._ask = ask

    def render(self, request: Request) -> None:
        """Answer a request of any method."""
        if request.method not in (b"GET", b"HEAD"):
            request.refuse(method_not_allowed(b"GET, HEAD"))
        else:
            answered = Deferred.fromCoroutine(self._answer(request))
            answered.addErrback(request.fail)

    async def _answer(self, request: Request) -> None:
        request.respond(await self._ask(request))


def serve_health(site: RelaySite, root: Resource, examiner: Examiner) -> None:
    """Let a site answer for what an examiner finds: ``/health``, what is below it, and ``/ready``."""

    async def health(_: Request) -> Reply:
        return _present(await examiner.health())

    async def queries(_: Request) -> Reply:
        found = await examiner.queries()
        return json_error(404, "queries are disabled (queries = false)") if found is None else _present(found)

    async def ready(_: Request) -> Reply:
        found = await examiner.ready()
        shown = {**found.show(), "status": "ready"} if found.passed else found.show()  # the word that 2.x has for it
        return json_reply(200 if found.passed else 503, shown)

    async def backend(request: Request) -> Reply:
        name = text(unquote_to_bytes(request.path[len(BACKENDS) :]))
        found = await examiner.backend(name)
        return json_error(404, f'there is no backend "{name}"') if found is None else _present(found)

    root.putChild(b"health", QuestionResource(health))
    root.putChild(b"health/queries", QuestionResource(queries))
    root.putChild(b"ready", QuestionResource(ready))
    site.add_branch(BACKENDS, QuestionResource(backend))


def _present(health: Health) -> Reply:
    return json_reply(200 if health.passed else 503, health.show())


def serve_status(root: Resource, ask: Callable[[], Awaitable[dict[str, Any]]]) -> None:
    """Let a site answer ``/status``, for people."""

    async def status(_: Request) -> Reply:
        shown = json.dumps(await ask(), ensure_ascii=False, indent=2)
        return Reply(200, _HEADERS, shown.encode("utf-8", "backslashreplace") + b"\n")

    root.putChild(b"status", QuestionResource(status))
