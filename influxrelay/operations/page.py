"""The page for people: ``/`` of the admin listener. It says what ``/status`` says, the troubles first."""

from __future__ import annotations

import re
import socket
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.template import Tag, flattenString, tags

from influxrelay.core.text import age, count, iso, size
from influxrelay.operations.charts import chart
from influxrelay.operations.history import Track
from influxrelay.operations.overview import BAD_STATES, RATE_SPAN, STATES, Facts, Trouble
from influxrelay.operations.verifications import ALL

_COMMAND = "influxrelay "  # how a command in an advice begins; it goes to the end
_LOSSES = ("it is losing ", "lost: ")  # how an advice on lost writes begins
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT[\d:]+Z)")


def render(facts: Facts) -> Deferred[bytes]:
    """Write the page."""
    troubled = [_trouble(each, facts.now) for each in facts.troubles()]
    headline = f"{count(len(troubled), 'thing')} to look at" if troubled else "All is well"
    page = tags.html(
        tags.head(
            tags.meta(charset="utf-8"),
            tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
            tags.meta(name="color-scheme", content="light dark"),
            tags.title(f"{headline} - influxrelay on {socket.gethostname()}"),
            tags.link(rel="icon", href="data:,"),
            tags.link(rel="stylesheet", href="page.css"),
            tags.noscript(tags.meta(content="5", **{"http-equiv": "refresh"})),
            Tag("script", {"src": "page.js", "defer": "defer"}),
        ),
        tags.body(
            tags.p("The relay does not answer: what is below is old.", id="silent", role="alert"),
            Tag("main")(
                _header(facts),
                tags.h2(headline, class_="bad" if troubled else "good"),
                tags.p("Writes of clients are accepted.") if facts.health.passed else "",
                tags.ul(troubled, class_="troubles") if troubled else "",
                [_listener(each, facts) for each in facts.status["listeners"]],
                _removed(facts),
                _dead_letters(facts),
                _log(facts),
                tags.footer(
                    "The same as JSON: ",
                    tags.a("/status", href="status"),
                    ", for Prometheus: ",
                    tags.a("/metrics", href="metrics"),
                    ". All times are UTC. The page renews itself every five seconds.",
                ),
            ),
        ),
        lang="en",
    )
    return flattenString(None, page).addCallback(lambda written: b"<!DOCTYPE html>\n" + written)


def _header(facts: Facts) -> Tag:
    status = facts.status
    return tags.header(
        tags.h1("influxrelay"),
        tags.p(
            f"{socket.gethostname()}, version {status['version']}, up for {age(status['uptime'])}, ",
            tags.time(iso(facts.now)),
        ),
    )


# -- what is wrong


def _trouble(trouble: Trouble, now: float) -> Tag:
    """Return what is wrong, since when, and what to do."""
    whose = trouble.backend or trouble.listener
    of = f" of {trouble.listener}" if trouble.backend else ""
    since = "" if trouble.since is None else f" since {iso(trouble.since)} ({age(now - trouble.since)})"
    return tags.li(
        [tags.strong(whose), f"{of}: {trouble.what}{since}"] if whose else tags.strong(trouble.what),
        tags.ul([_advice(each) for each in trouble.advice]) if trouble.advice else "",
    )


def _advice(words: str) -> Tag:
    """Return an advice, with the command in it set as one, and times that stay in one piece."""
    before, found, command = words.partition(_COMMAND)
    pieces = [tags.time(each) if _TIME.fullmatch(each) else each for each in _TIME.split(before)]
    losses = "bad" if before.startswith(_LOSSES) else ""
    return tags.li(pieces, tags.code(found + command) if found else "", class_=losses)


# -- each listener


def _listener(listener: dict[str, Any], facts: Facts) -> Tag:
    rows = {row["backend"]: row for row in facts.status["queues"] if row["listener"] == listener["name"]}
    reason = listener["problem"] if listener["ready"] else "it is starting or stopping"
    return tags.section(
        tags.h3(listener["name"]),
        tags.p(
            f"listens on {listener['bind_addr']}; " if listener["bind_addr"] else "",
            tags.span(f"refuses writes: {reason}", class_="bad") if reason else "takes writes",
            [_verification(each, facts.now) for each in listener["verifications"]],
        ),
        tags.div(
            [
                _backend(rows[name], facts, listener["repaired_points"].get(name, 0))
                for name in (backend["name"] for backend in listener["backends"])
                if name in rows
            ],
            class_="backends",
        ),
    )


def _verification(verification: dict[str, Any], now: float) -> Tag | str:
    what = "last verified" if verification["scope"] == ALL else "partly verified"
    when = f"; {what} {verification['time']} ({age(now - _seconds(verification['time']))} ago): "
    if verification["equal"]:
        return f"{when}its backends were equal"
    return tags.span(f"{when}{count(verification['differences'], 'difference')}", class_="bad")


def _seconds(shown: str) -> float:
    return datetime.fromisoformat(shown).timestamp()


def _removed(facts: Facts) -> Tag | str:
    """Show what is left of backends that are no longer configured."""
    rows = [row for row in facts.status["queues"] if row["state"] == "removed"]
    if not rows:
        return ""
    return tags.section(
        tags.h3("No longer configured"), tags.div([_backend(row, facts) for row in rows], class_="backends")
    )


def _backend(row: dict[str, Any], facts: Facts, repaired: int = 0) -> Tag:
    track = facts.history.track(row["listener"], row["backend"])
    rates = None if track is None else track.rates(RATE_SPAN)
    lost = sum(each["writes"] for each in row["drops"])
    shown: list[tuple[str, str]] = []
    if rates is not None:
        shown += [("writes in", f"{rates.accepted:,.1f}/s"), ("writes out", f"{rates.sent:,.1f}/s")]
    if row["queue"] == "none":
        shown.append(("queue", "none"))
    elif row["writes"] is not None:
        shown.append(("waiting", f"{count(row['writes'], 'write')}, {size(row['bytes'])}" if row["writes"] else "0"))
        if row["oldest_age"] is not None:
            shown.append(("oldest", f"{age(row['oldest_age'])} ago"))
        to_go = None if rates is None else rates.time_to_go(row["writes"])
        if to_go is not None:
            shown.append(("caught up in", f"about {age(to_go)}"))
    if lost:
        shown.append(("lost", count(lost, "write")))
    if repaired:
        shown.append(("repaired", count(repaired, "point")))
    if row["dead_letters"]:
        shown.append(("dead letters", str(row["dead_letters"])))
    quality = "bad" if row["state"] in BAD_STATES or lost else "good" if row["state"] == "up" else "fair"
    return tags.article(
        tags.h4(row["backend"], " ", tags.span(STATES[row["state"]], class_=f"state {quality}")),
        tags.p(row["reason"], class_="reason") if row["reason"] else "",
        tags.dl([tags.div(tags.dt(name), tags.dd(value)) for name, value in shown]),
        _charts(track, row, facts.now),
    )


def _charts(track: Track | None, row: dict[str, Any], now: float) -> list[Tag]:
    if track is None or row["queue"] == "none":
        return []
    waiting = [(each.time, float(each.waiting)) for each in track.samples]
    ages = [(each.time, each.age) for each in track.samples]
    return [
        chart("waiting writes, last hour", waiting, now, lambda most: f"{most:,.0f}"),
        chart("age of the oldest, last hour", ages, now, age),
    ]


# -- dead letters and the log


def _dead_letters(facts: Facts) -> Tag | str:
    total = sum(row["dead_letters"] or 0 for row in facts.status["queues"])
    if not total:
        return ""
    shown = (
        tags.li(
            f"{each['time']} {each['backend']} of {each['listener']}, database {each['database']}: ",
            tags.strong(f"{each['status']} {each['message']}"),
            tags.br(),
            tags.code(each["first_line"] or each["kind"]),
        )
        for each in facts.letters
    )
    return tags.section(
        tags.h3("Dead letters"),
        tags.p(
            f"{count(total, 'write')} that a backend has refused for good, after the client had its answer."
            " See to the cause, then send them again with ",
            tags.code("influxrelay dead-letters replay --all"),
            " or delete them with ",
            tags.code("influxrelay dead-letters drop --all"),
            ". ",
            tags.code("influxrelay dead-letters list"),
            f" shows all; the oldest {len(facts.letters)}:" if len(facts.letters) < total else " shows these, too:",
        ),
        tags.ul(list(shown)),
    )


def _log(facts: Facts) -> Tag | str:
    if not facts.lines:
        return ""
    return tags.section(
        tags.h3("Warnings and errors in the log"),
        tags.ul(
            [
                tags.li(tags.time(iso(each.time)), f" {each.text}{each.history()}", class_=each.level)
                for each in reversed(facts.lines)
            ],
            class_="log",
        ),
    )
