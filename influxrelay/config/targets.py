"""The URLs of a backend: what follows from its location, its endpoints and its API."""

from __future__ import annotations

from urllib.parse import SplitResult

from influxrelay.config.document import Place, Table
from influxrelay.config.readers import shown

_WRITE_PATHS = {"v1": "write", "v2": "api/v2/write", "v3": "api/v3/write_lp"}


def prometheus_targets(url: SplitResult, endpoints: dict[str, str]) -> Table:
    """Return a Prometheus' URLs: the location is where it takes remote writes.

    Queries are beside, or where Mimir has them; for another path there is an endpoint.
    """
    origin = f"{url.scheme}://{url.netloc}"
    query = endpoints.get("query", "")
    for write, read in (("/api/v1/write", "/api/v1/query"), ("/api/v1/push", "/prometheus/api/v1/query")):
        if not query and url.path.endswith(write):
            query = f"{url.path.removesuffix(write)}{read}"
    return {
        "query_url": f"{origin}/{query.lstrip('/')}" if query else "",
        "write_url": f"{origin}{url.path or '/'}",
        "ping_url": f"{origin}/{endpoints.get('ping', '-/healthy')}",
    }


def refuse_another_path(place: Place, api: str, url: SplitResult) -> None:
    """Refuse a location that ends in the path of another API."""
    path = url.path.rstrip("/")
    found = next((each for each in ("v2", "v3", "v1") if path.endswith(f"/{_WRITE_PATHS[each]}")), api)
    if found != api:
        raise place.error(
            f'found {shown(url.geturl())}, which is for api = "{found}"; allowed with api = "{api}":'
            f" a URL without a path, or with one that ends in /{_WRITE_PATHS[api]}"
        )


def targets(url: SplitResult, endpoints: dict[str, str], api: str) -> Table:
    """Return an output's URLs.

    The location is the base of the endpoints if one of them is ``write`` (the Veepee fork) or its path is empty or ends
    in a slash; else it is the write URL (InfluxDB Relay), and the base is what precedes the path of its API, or its
    last segment.
    """
    base, _, segment = url.path.rpartition("/")
    write = segment or _WRITE_PATHS[api]
    if "write" in endpoints:
        base, write = url.path.rstrip("/"), endpoints["write"]
    elif segment and url.path.endswith(f"/{_WRITE_PATHS[api]}"):
        base, write = url.path.removesuffix(f"/{_WRITE_PATHS[api]}"), _WRITE_PATHS[api]
    place = [] if write == _WRITE_PATHS[api] else write.rstrip("/").split("/")[:-1]

    def beside(name: str) -> str:  # the write URL, or where the API has it
        return "/".join([*place, name])

    def join(endpoint: str) -> str:
        return f"{url.scheme}://{url.netloc}{base}/{endpoint}"

    return {
        "write_url": join(write),
        "write_prom_url": join(endpoints["write_prom"]) if "write_prom" in endpoints else None,
        "ping_url": join(endpoints.get("ping", beside("ping"))),
        "query_url": join(endpoints.get("query", beside("query"))),
    }
