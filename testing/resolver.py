"""A resolver that knows the names that a test gives it, and no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Nothing is under way."""


@implementer(IHostnameResolver)
class Resolver:
    """Answers at once, or when the test says so.

    :param names: the addresses of each name; None leaves the answers to :meth:`answer`.
    :ivar asked: the names that were looked up, in order.
    """

    def __init__(self, names: Mapping[str, Sequence[str]] | None = None) -> None:
        self._names = names
        self._unanswered: list[IResolutionReceiver] = []
        self.asked: list[str] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,  # noqa: N803 (the interface's)
        hostName: str,  # noqa: N803 (the interface's)
        portNumber: int = 0,  # noqa: N803 (the interface's)
        addressTypes: Any = None,  # noqa: N803 (the interface's)
        transportSemantics: str = "TCP",  # noqa: N803 (the interface's)
    ) -> IHostResolution:
        """Take a question."""
        self.asked.append(hostName)
        resolution: IHostResolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        self._unanswered.append(resolutionReceiver)
        self._transport: Literal["TCP", "UDP"] = "UDP" if transportSemantics == "UDP" else "TCP"
        self._port = portNumber
        if self._names is not None:
            self.answer(*self._names.get(hostName, ()))
        return resolution

    def answer(self, *hosts: str) -> None:
        """Answer the oldest question."""
        receiver = self._unanswered.pop(0)
        for host in hosts:
            kind = IPv6Address if ":" in host else IPv4Address
            receiver.addressResolved(kind(self._transport, host, self._port))
        receiver.resolutionComplete()

    @property
    def waiting(self) -> int:
        """How many questions are not answered yet."""
        return len(self._unanswered)


class ResolvingClock(Clock):
    """A clock that stands for a reactor, whose resolver knows these names."""

    def __init__(self, names: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.nameResolver = Resolver(names)


def install_resolver(case: SynchronousTestCase, reactor: Any, names: Mapping[str, Sequence[str]]) -> Resolver:
    """Let a reactor resolve these names, and no others, for as long as the test runs."""
    resolver = Resolver(names)
    before = reactor.installNameResolver(resolver)
    case.addCleanup(reactor.installNameResolver, before)
    return resolver
