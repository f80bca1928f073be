"""What another configuration does to the senders of a listener."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import attrs

from influxrelay.config.diff import pair_outputs
from influxrelay.config.settings import HTTPOutputConfig, ListenerConfig
from influxrelay.delivery.backend import Backend
from influxrelay.delivery.sender import Sender
from influxrelay.listeners.factory import http_outputs, sender_settings


@attrs.frozen
class SenderChanges:
    """What another configuration does to a listener's senders, as soon as :meth:`apply` is called.

    :ivar senders: those that there will be, in order.
    :ivar kept: those of them that are there already, by their new names.
    :ivar removed: those that will be no more.
    :ivar told: what changes beside the configuration itself, for people.
    """

    senders: list[Sender] = attrs.field(factory=list)
    kept: dict[str, Sender] = attrs.field(factory=dict)
    removed: list[Sender] = attrs.field(factory=list)
    told: list[str] = attrs.field(factory=list)
    _steps: list[Callable[[], None]] = attrs.field(factory=list)

    @classmethod
    def between(
        cls,
        old: ListenerConfig,
        new: ListenerConfig,
        senders: Sequence[Sender],
        make_sender: Callable[[HTTPOutputConfig, str], Sender],
        make_backend: Callable[[HTTPOutputConfig], Backend],
    ) -> SenderChanges:
        """Find out which senders stay, which come and which go.

        :param senders: of the old outputs, in their order.
        :raises ConfigError: a PEM file cannot be used.
        """
        changes = cls()
        present = {each.name: (each, sender) for each, sender in zip(http_outputs(old), senders, strict=True)}
        before = pair_outputs(old, new)
        for output in http_outputs(new):
            if output.name not in before:
                changes.senders.append(make_sender(output, new.name))
                continue
            was, sender = present.pop(before[output.name].name)
            changes.senders.append(sender)
            changes.kept[output.name] = sender
            made = make_backend(output)
            stays = made.does_the_same(sender.backend)
            if not stays or output != was or new.name != old.name:
                backend = sender.backend if stays else made
                changes._steps.append(partial(sender.reconfigure, backend, sender_settings(output, new.name)))
            if output == was and not stays:
                changes.told.append(f"{new.name}: output {output.name}: content of its PEM files")
        changes.removed.extend(sender for _, sender in present.values())
        return changes

    def added(self) -> list[Sender]:
        """Return those that are new."""
        return [sender for sender in self.senders if sender not in self.kept.values()]

    def apply(self) -> None:
        """Let the senders that stay go on with what holds now."""
        for step in self._steps:
            step()
