"""Readers of URLs and their paths in the configuration file."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from influxrelay.config.readers import NotAllowed, is_host, is_ip, string
from influxrelay.config.settings import StreamConfig

_URL_CHARACTER = r"(?:[!-$&-~]|%[0-9A-Fa-f]{2})"


def url_without_query(value: object) -> SplitResult:
    """Read the location of a backend that clients name a database for."""
    url = _url(value)
    if "?" in str(value) or "#" in str(value):
        raise NotAllowed("a URL without ? and # (the query comes from each write)")
    return url


def url_with_db(value: object) -> SplitResult:
    """Read the location of a backend with the database to write to in its query."""
    url = _url(value)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    if "#" in str(value):
        raise NotAllowed("a URL without #")
    if "precision" in query:
        raise NotAllowed("a URL without precision= (the precision is the listener's)")
    if "u" in query or "p" in query:
        raise NotAllowed("a URL without u= and p= (use the keys username and password)")
    if not query.get("db"):
        raise NotAllowed('a URL with a database such as "http://127.0.0.1:8086/write?db=telegraf"')
    return url


def url_of_remote_write(value: object) -> SplitResult:
    """Read the URL at which a Prometheus takes remote writes."""
    url = _url(value)
    if "#" in str(value):
        raise NotAllowed("a URL without #")
    return url


def url_path(value: object) -> str | None:
    """Read the path of an endpoint; return it without its first slash."""
    if value == "":
        return None
    path = value.removeprefix("/") if isinstance(value, str) else "?"
    if not re.fullmatch(rf"(?!/)(?:(?![?#]){_URL_CHARACTER})*", path) or "://" in path:
        raise NotAllowed('a path such as "/write"')
    return path


def journal(value: object) -> str | StreamConfig | None:
    """Read the directory of a journal, or the URL of a shared one, whose servers have 4222 as their default port."""
    text = string(value)
    match = re.fullmatch(r"(?i)([a-z]+)://(.*?)(?:/([^/]*))?/?", text or "")
    if text is None or match is None:
        return text
    scheme, hosts, stream = match[1].lower(), match[2], match[3] or ""
    if scheme not in ("nats", "tls"):
        raise NotAllowed('a directory, or a URL such as "nats://HOST:4222,HOST:4222,HOST:4222/STREAM" or "tls://..."')
    if "@" in hosts:
        raise NotAllowed("a URL without user:password@ (use the key journal-credentials-file)")
    servers = tuple(map(_nats_server, hosts.split(",")))
    if len(set(servers)) < len(servers):
        raise NotAllowed("a URL that names each server once")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}(?<!-letters)", stream):
        end = "a URL with a slash and the name of a stream at its end"
        raise NotAllowed(f"{end}: letters, digits, - and _, but not -letters at its own end")
    return StreamConfig(servers, stream, tls=scheme == "tls")


def _nats_server(text: str) -> str:
    match = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]+)(?::([0-9]{1,5}))?", text)
    host = match[1] if match else ""
    good = is_ip(host[1:-1], 6) if host.startswith("[") else is_host(host)
    port = int(match[2] or 4222) if match else 0
    if not good or not 0 < port < 65536:
        raise NotAllowed("a URL with a list of servers, HOST:PORT,HOST:PORT, behind its scheme")
    return f"{host}:{port}"


def _url(value: object) -> SplitResult:
    wrong = NotAllowed('an http:// or https:// URL such as "http://127.0.0.1:8086/write"')
    if not isinstance(value, str) or not re.fullmatch(rf"{_URL_CHARACTER}+", value):
        raise wrong
    try:
        url = urlsplit(value)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise wrong from None
    if "@" in url.netloc:
        raise NotAllowed("a URL without user:password@ (use the keys username and password)")
    good_host = is_ip(unquote(host), 6) if "[" in url.netloc else is_host(host)
    if url.scheme not in ("http", "https") or not good_host or port == 0 or url.netloc.endswith(":"):
        raise wrong
    return url
