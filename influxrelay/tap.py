"""The twistd plugin's two halves: the command line, and the service that it asks for."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService
from twisted.python import usage

from influxrelay import __version__
from influxrelay.config.loader import load
from influxrelay.config.settings import Config, HTTPListenerConfig, HTTPOutputConfig, JournalConfig, UDPOutputConfig
from influxrelay.core.errors import ConfigError
from influxrelay.core.text import count, iso
from influxrelay.lineprotocol.query_string import without
from influxrelay.service.process_limits import (
    collect_garbage_less_often,
    keep_less_memory,
    keep_what_exists,
    raise_file_limit,
)
from influxrelay.service.systemd import Notifier
from influxrelay.transport.reactor import install_reactor
from influxrelay.transport.sockets import Sockets, systemd_sockets

if TYPE_CHECKING:
    from influxrelay.service.relay_service import RelayService

_MB = 1024 * 1024


class Options(usage.Options):
    """The command line of ``twistd influxrelay``."""

    synopsis = "--config FILE [--check]"
    longdesc = (
        "Relays InfluxDB line protocol and Prometheus remote writes to every configured backend. "
        "The configuration is TOML; files of InfluxDB Relay run unchanged."
    )
    optParameters = [["config", "c", None, "The configuration file."]]  # noqa: RUF012 (Twisted's interface)
    optFlags = [["check", None, "Read the configuration, say what it would do, and exit."]]  # noqa: RUF012

    config: Config

    def opt_version(self) -> None:
        """Show the version of influxrelay, and exit."""
        print(f"influxrelay {__version__}")  # noqa: T201 (asked for)
        sys.exit(0)

    def postOptions(self) -> None:
        """Read the configuration.

        Exits with one line and a non-zero code where it cannot be used: twistd would print the usage and exit with 0.
        """
        collect_garbage_less_often()  # now, for most of the program is still to be imported
        install_reactor()
        if self["config"] is None:
            sys.exit("influxrelay: --config FILE is required")
        try:
            self.config = load(self["config"])
            if self["check"]:
                _make(self.config)
        except ConfigError as error:
            sys.exit(f"influxrelay: {error}")
        if self["check"]:
            print(describe(self.config))  # noqa: T201 (asked for)
            sys.exit(0)


def describe(config: Config) -> str:
    """Say what a configuration does, without its secrets."""
    lines = [f"{config.path}: correct", *(f"warning: {each}" for each in config.warnings)]
    for http in config.http:
        lines.append(f"http {http.name}: listens on {http.bind_addr}, consistency {http.consistency}")
        lines += _describe_journal(http.journal)
        lines += [f"  to {_describe_output(output, http.journal)}" for output in http.outputs]
        lines += _describe_shards(http)
        outputs = [*http.outputs, *(output for shard in http.shards for output in shard.outputs)]
        if any(output.filters and output.api == "v1" for output in outputs):
            lines.append("  filters do not apply to Prometheus' remote writes")
    for udp in config.udp:
        lines.append(f"udp {udp.name}: listens on {udp.bind_addr}, precision {udp.precision}")
        lines += _describe_journal(udp.journal)
        for each in udp.outputs:
            if isinstance(each, HTTPOutputConfig):
                batches = f"batches of {udp.batch_lines} lines or {udp.batch_interval:g} s"
                lines.append(f"  to {_describe_output(each, udp.journal)}, {batches}")
            else:
                lines.append(f"  to {each.name}: {each.location}, MTU {each.mtu}{_describe_filters(each)}")
    for tcp in config.tcp:
        batches = f"batches of {tcp.batch_lines} lines or {tcp.batch_interval:g} s"
        lines.append(f"tcp {tcp.name}: listens on {tcp.bind_addr}, precision {tcp.precision}")
        lines += _describe_journal(tcp.journal)
        lines += [f"  to {_describe_output(output, tcp.journal)}, {batches}" for output in tcp.outputs]
    return "\n".join(lines)


def _describe_shards(http: HTTPListenerConfig) -> list[str]:
    if not http.shards:
        return []
    default = f"in {http.default_shard}" if http.default_shard else "refused"
    lines = [
        f"  shards by {http.shard_key}" + (f", lines without it: {default}" if http.shard_key != "measurement" else "")
    ]
    for shard in http.shards:
        lines.append(f"  shard {shard.shard}, weight {shard.weight:g}")
        lines += [f"  {line}" for line in _describe_journal(shard.journal)]
        lines += [f"    to {_describe_output(output, shard.journal)}" for output in shard.outputs]
    for epoch in http.epochs:
        pinned = f", {count(len(epoch.pins), 'pinned key')}" if epoch.pins else ""
        since = "the beginning" if epoch.since is None else iso(epoch.since / 10**9)
        lines.append(f"  data from {since}: {', '.join(epoch.shards)}{pinned}")
    return lines


def _describe_journal(journal: JournalConfig | None) -> list[str]:
    if journal is None:
        return []
    bounds = f"{journal.max_bytes // _MB} MB, {journal.max_age / 3600:g} h, {journal.full} when full"
    trouble = f"{journal.on_error} on error or after {journal.timeout:g} s"
    if journal.shared:
        trouble += f", lease {journal.shared.lease:g} s"
    return [f"  journal in {journal.directory}: {bounds}, sync {journal.sync}, {trouble}"]


def _describe_output(output: HTTPOutputConfig, journal: JournalConfig | None) -> str:
    user = "as the client"
    if output.token is not None:
        user = "with a token of its own"
    elif output.username is not None:
        user = f"as user {output.username}"
    query = without(output.query.encode(), b"u", b"p").decode()
    query = f" ({query})" if query else ""
    queue = ""
    if output.buffer_size_mb and journal is None:
        queue = f", buffer of {output.buffer_size_mb} MB, {output.buffer_full} when full"
    if output.create_databases:
        queue += ", creates databases"
    if output.type == "prometheus":
        queue += ", takes Prometheus' remote writes only"
    if output.answers:
        queue += f", {count(len(output.answers), 'rule')} for answers"
    told = f"{output.write_url}{query}, {user}, timeout {output.timeout:g} s{queue}{_describe_filters(output)}"
    return f"{output.name}: {told}"


def _describe_filters(output: HTTPOutputConfig | UDPOutputConfig) -> str:
    wanted = [f"measurement {each.measurement_expression!r}" for each in output.filters if each.measurement_expression]
    wanted += [f"tags {each.tag_expression!r}" for each in output.filters if each.tag_expression]
    return f", only lines with {' and '.join(wanted)}" if wanted else ""


def makeService(options: Options) -> IService:
    """Build the service; nothing is opened before it starts."""
    from twisted.internet import reactor  # noqa: PLC0415 (importing it installs it, and twistd has a say in which)

    sockets, notifier = Sockets(systemd_sockets(os.environ)), Notifier(os.environ, reactor)
    try:
        service = _make(options.config, sockets=sockets, notifier=notifier)
    except ConfigError as error:
        sys.exit(f"influxrelay: {error}")
    _reload_on_hangup(service.hang_up, reactor)
    raise_file_limit()
    keep_what_exists()
    keep_less_memory()
    return service


def _make(config: Config, **more: Any) -> RelayService:
    """Build the service, on the reactor that there is now.

    :raises ConfigError: the configuration names a file that cannot be used.
    """
    from twisted.internet import reactor  # noqa: PLC0415 (as above)

    from influxrelay.service.relay_service import RelayService  # noqa: PLC0415 (it imports what reactors import)

    return RelayService(config, reactor, **more)


def _reload_on_hangup(hang_up: Callable[[], object], reactor: Any) -> None:
    """Let SIGHUP, which would end the process, reload the configuration; who listened for it before still hears it."""
    before = signal.getsignal(signal.SIGHUP)

    def reload(number: int, frame: Any) -> None:
        reactor.callFromThread(hang_up)
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGHUP, reload)
