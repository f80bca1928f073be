"""The table that ``make picture`` shows: facts in, lines out."""

from __future__ import annotations

import re
import textwrap

import attrs

from testing.picture import NATS, RELAYS, SERVERS

INDENT = " " * 22  # of folded lines: the column in which a part's state is explained
SHOWN_EVENTS = 6
DETAIL = re.compile(r"(?<=down: )([a-z]+): [^;]*")
OTHER = {"relay1": "relay2", "relay2": "relay1", "influx1": "influx2", "influx2": "influx1"}


@attrs.define
class SenderFacts:
    """What a sender has written over HTTP, and what has failed.

    :ivar waits: how long the write in flight has been waiting, in seconds.
    :ivar relay: which relay accepted the last write.
    :ivar failing: whether a write has failed in the last seconds.
    """

    name: str
    through: str
    written: int
    rate: float
    failed: int
    repeated: int
    waits: float
    relay: str
    failing: bool = False


@attrs.define
class Facts:
    """The state of all parts.

    :ivar parts: ``"up"``, ``"killed"``, ``"frozen"`` or ``"starting"``, by name.
    :ivar votes: the health of a server as a relay sees it: the status, 0 for no answer, and the message.
    :ivar states: HAProxy's, by ``backend/server``.
    :ivar answers: queries a second by the server that answered them, or ``"503"`` or ``"broken"``.
    :ivar alerts: those that are firing, by Prometheus.
    """

    clock: str
    parts: dict[str, str]
    votes: dict[tuple[str, str], tuple[int, str]]
    states: dict[str, str]
    senders: list[SenderFacts]
    answers: dict[str, float]
    datagrams: float
    alerts: list[str]
    events: list[str]
    chosen: str = ""
    addresses: str = ""


def keys(parts: int) -> str:
    """Return the line that says what keys do."""
    return f"KEYS  1-{parts} select  k kill -9  f freeze (SIGSTOP)  r restart or resume  q quit"


def _brief(reason: str) -> str:
    return DETAIL.sub(r"\1", reason)


def _lags(facts: Facts, server: str) -> list[str]:
    """Return why relays do not count a server as in sync; for one that is down, only the short reason."""
    return [
        f"{relay}: {_brief(facts.votes[relay, server][1])}"
        for relay in RELAYS
        if facts.votes.get((relay, server), (0, ""))[0] not in (0, 200)
    ]


def _gets_queries(facts: Facts, server: str) -> bool:
    behind = any(facts.states.get(f"{server}_is_behind/{relay}") == "UP" for relay in RELAYS)
    return facts.states.get(f"influxdb/{server}") == "UP" and not behind


def describe_part(facts: Facts, name: str) -> str:
    """Explain a part's state."""
    if name in NATS:
        return _describe_nats(facts, name)
    return _describe_relay(facts, name) if name in RELAYS else _describe_server(facts, name)


def _describe_nats(facts: Facts, name: str) -> str:
    if not _has_quorum(facts):
        return "keeps the log, and waits for another" if facts.parts[name] == "up" else "two of three are needed"
    return "keeps the log" if facts.parts[name] == "up" else "the two others keep the log"


def _has_quorum(facts: Facts) -> bool:
    """Tell whether most of the NATS servers run, if there are any."""
    states = [facts.parts[name] for name in NATS if name in facts.parts]
    return not states or states.count("up") * 2 > len(states)


def _describe_relay(facts: Facts, name: str) -> str:
    state, other = facts.parts[name], OTHER[name]
    clients = ", ".join(each.name for each in facts.senders if each.relay == name)
    if state != "up":
        where = f"its clients write to {other}" if facts.parts[other] == "up" else "its clients cannot write"
        if state != "frozen":
            kept = "the shared log, and delivered from there" if NATS[0] in facts.parts else "its journal"
            return f"{where}; what it has accepted is in {kept}"
        noticed = not clients and not any(each.waits > 1 for each in facts.senders)
        return f"does not answer; {where}{'' if noticed else ' when HAProxy notices'}"
    if facts.states.get(f"relays/{name}") != "UP":
        return "up, but HAProxy does not send it writes yet"
    return f"accepts writes of {clients}" if clients else "ready for writes, no clients now"


def _describe_server(facts: Facts, name: str) -> str:
    lags = "; ".join(_lags(facts, name))
    if facts.parts[name] != "up":
        return f"gets no queries; the relays keep what it misses ({lags or 'nothing yet'})"
    if lags:
        return f"behind, so it gets no queries ({lags})"
    return "in sync, answers queries" if _gets_queries(facts, name) else "in sync, gets queries soon"


def find_trouble(facts: Facts) -> list[str]:
    """Return what is wrong, one phrase for each problem."""
    trouble = [f"{name} is {state}" for name, state in facts.parts.items() if state != "up"]
    trouble += [f"{server} is behind" for server in SERVERS if facts.parts[server] == "up" and _lags(facts, server)]
    readers = [server for server in SERVERS if _gets_queries(facts, server)]
    if not readers:
        trouble.append("no server is in sync and up: queries are answered 503")
    if not _has_quorum(facts):
        trouble.append("two of three NATS servers are down: writes are answered 503")
    held = [each.name for each in facts.senders if each.waits > 1]
    if held:
        trouble.append(f"writes wait: {', '.join(held)}")
    failing = [each.name for each in facts.senders if each.failing]
    if failing:
        trouble.append(f"writes fail: {', '.join(failing)}")
    return trouble


def table(facts: Facts) -> list[str]:
    """Return the lines of the table."""
    trouble = find_trouble(facts)
    verdict = "OK: every write reaches both servers, and both answer queries."
    lines = [
        f"influxrelay: two of everything{facts.clock:>48}",
        "",
        f"PROBLEM: {'; '.join(trouble)}." if trouble else verdict,
        "",
        "   PART     STATE     WHAT IT MEANS",
    ]
    for number, (name, state) in enumerate(facts.parts.items(), 1):
        mark = ">" if name == facts.chosen else " "
        shown = state if state == "up" else state.upper()
        lines.append(f"{mark}{number} {name:8} {shown:9} {describe_part(facts, name)}")
    lines += ["", "   SENDER        THROUGH  RELAY   WRITES   PER SECOND  FAILED  REPEATED  WAITS"]
    for each in facts.senders:
        waits = f"{each.waits:.1f} s" if each.waits > 0.3 else "-"
        lines.append(
            f"   {each.name:13} {each.through:8} {each.relay:7} {each.written:6} {each.rate:12.0f} {each.failed:7}"
            f" {each.repeated:9}  {waits}"
        )
    queries = ", ".join(f"{rate:.0f}/s {_by(who)}" for who, rate in sorted(facts.answers.items()) if rate >= 0.5)
    lines += [
        "",
        f"   QUERIES   {queries or 'none answered'}",
        f"   UDP       {facts.datagrams:.0f} lines a second through nginx, without acknowledgement",
        f"   ALERTS    {', '.join(facts.alerts) or 'none'} (Prometheus; most fire after a minute)",
        "",
        *(f"   {event}" for event in facts.events[-SHOWN_EVENTS:]),
        "",
        f"   {facts.addresses}",
    ]
    return lines


def fit(lines: list[str], width: int, height: int) -> list[str]:
    """Fit lines into a terminal: fold long ones, and leave out what is too much at the end."""
    folded = [textwrap.wrap(line, width - 1, subsequent_indent=INDENT) or [""] for line in lines]
    return [piece for pieces in folded for piece in pieces][:height]


def _by(who: str) -> str:
    return {"503": "refused: no server is in sync", "broken": "broken"}.get(who, f"answered by {who}")
