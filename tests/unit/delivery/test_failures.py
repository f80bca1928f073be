"""The reasons of failures."""

from __future__ import annotations

import errno
import socket
import ssl

from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import BackendFailure
from influxrelay.delivery.failures import explain


class ReasonTests(SynchronousTestCase):
    """What each error is called."""

    def test_reasons(self) -> None:
        """Each error of a connection has its reason, and says what happened."""
        for problem, reason in (
            (error.ConnectionRefusedError(), "refused"),
            (error.TimeoutError(), "timeout"),
            (error.ConnectingCancelledError(None), "timeout"),
            (CancelledError(), "timeout"),
            (error.DNSLookupError("x"), "unresolved"),
            (socket.gaierror(-2, "x"), "unresolved"),
            (ssl.SSLError("x"), "tls"),
            (ssl.SSLCertVerificationError("x"), "tls"),
            (error.NoRouteError(), "unreachable"),
            (error.ConnectError(), "unreachable"),
            (error.ConnectionDone(), "reset"),
            (error.ConnectionLost(), "reset"),
            (error.ConnectionAborted(), "reset"),
        ):
            explained = explain(Failure(problem))
            self.assertEqual(explained.reason, reason, problem)
            self.assertTrue(explained.detail)
            self.assertIsNone(explained.reply)

    def test_details(self) -> None:
        """What happened is said once: by the system where it has a number for it."""
        for problem, detail in (
            (error.ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "Connection refused"),
            (error.NoRouteError(errno.EHOSTUNREACH, "No route to host"), "No route to host"),
            (error.UnknownHostError(-2, "no such name"), "Hostname couldn't be looked up: -2: no such name"),
            (error.ConnectionDone(), "Connection was closed cleanly"),
        ):
            self.assertEqual(explain(Failure(problem)).detail, detail)

    def test_unknown(self) -> None:
        """An error that nobody knows is "garbage", with its name."""
        problem = explain(Failure(ZeroDivisionError("x")))
        self.assertEqual((problem.reason, problem.detail), ("garbage", "ZeroDivisionError: x"))

    def test_known_already(self) -> None:
        """A failure with a reason keeps it."""
        problem = BackendFailure("stopped", "x")
        self.assertIs(explain(Failure(problem)), problem)
