"""The engine on real servers; to be run on a reactor on asyncio by ``test_nats_engine``."""

from __future__ import annotations

from testing.engine_contract import EngineContract
from testing.nats_case import NatsCase


class ContractTests(NatsCase, EngineContract):
    """The real engine does what every engine does."""
