"""Small charts in a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.web.template import Tag, tags

from influxrelay.operations.history import SPAN

_WIDTH, _HEIGHT = 240, 40


def chart(title: str, points: Sequence[tuple[float, float]], now: float, show: Callable[[float], str]) -> Tag:
    """Return a chart of the last hour, the present at the right; its scale ends at the largest value.

    :param points: times in seconds since the epoch, ascending, and values of 0 or more.
    :param show: writes a value in words.
    """
    most = max((value for _, value in points), default=0.0)
    places = [
        (_WIDTH * (1 - (now - when) / SPAN), (_HEIGHT - 1) * (1 - value / most) if most else _HEIGHT - 1.0)
        for when, value in points
        if when >= now - SPAN
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    drawing = Tag(
        "svg",
        {"viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "preserveAspectRatio": "none", "role": "img", "aria-label": title},
        [Tag("polyline", {"points": line, "vector-effect": "non-scaling-stroke"})],
    )
    return tags.figure(drawing, tags.figcaption(f"{title}, at most {show(most)}"))
