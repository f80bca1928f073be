"""Names for the outputs of a listener that have the same one.

InfluxDB Relay and its Veepee fork let several outputs share a name, as templates often make them. Here a name belongs
to one backend in health, metrics, commands and the journal. So each output of a shared name gets its address as a
suffix (``east@10.0.0.1:8086``), which stays the same when outputs are added, removed or reordered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, count
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs

from influxrelay.config.document import Place
from influxrelay.config.settings import HTTPOutputConfig, ListenerConfig, UDPOutputConfig

_Listener = TypeVar("_Listener", bound=ListenerConfig)
_Output = HTTPOutputConfig | UDPOutputConfig


def tell_apart(place: Place, listeners: Sequence[_Listener]) -> tuple[tuple[_Listener, ...], tuple[str, ...]]:
    """Give outputs of one name names of their own.

    :param place: of the array of listeners.
    :return: the listeners, and a warning for each output that has another name than its own.
    """
    warnings: list[str] = []
    renamed = []
    for index, listener in enumerate(listeners):
        names = list(_unique_names(listener.outputs))
        outputs: Any = tuple(attrs.evolve(each, name=name) for each, name in zip(listener.outputs, names, strict=True))
        renamed.append(attrs.evolve(listener, outputs=outputs))
        for number, (output, name) in enumerate(zip(listener.outputs, names, strict=True)):
            if name != output.name:
                at = (place[index] / "output")[number] / "name"
                warnings.append(f'{at}: several outputs are named "{output.name}"; this one is called "{name}"')
    return tuple(renamed), tuple(warnings)


def _unique_names(outputs: Sequence[_Output]) -> Iterator[str]:
    """Yield a name for each output; outputs that share both name and address are numbered from the second on."""
    shared = Counter(each.name for each in outputs)
    taken = {name for name, number in shared.items() if number == 1}
    for output in outputs:
        name, address = output.name, _address(output)
        if shared[name] > 1:
            base = name if address in name else f"{name}@{address}"
            name = next(each for each in chain([base], (f"{base}-{n}" for n in count(2))) if each not in taken)
            taken.add(name)
        yield name


def _address(output: _Output) -> str:
    return urlsplit(output.write_url).netloc if isinstance(output, HTTPOutputConfig) else output.location
