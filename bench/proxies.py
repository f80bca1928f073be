"""nginx and HAProxy as contenders: the price of moving the bytes."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.backends import Backends
from bench.contenders import Contender
from bench.scenarios import Scenario
from testing.servers import LOOPBACK, Server, find_program, port_is_free

_MIRROR = """\
daemon off; {user} worker_processes 1; pid {directory}/nginx.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
 {temporary}
 access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
 client_max_body_size 100m; client_body_buffer_size 1m;
 proxy_http_version 1.1; proxy_set_header Connection ""; proxy_ssl_verify off;
 upstream a {{ server {a}; keepalive 64; keepalive_requests 100000000; }}
 upstream b {{ server {b}; keepalive 64; keepalive_requests 100000000; }}
 server {{
  listen {address}{ssl};
  ssl_certificate {certificate}; ssl_certificate_key {certificate};
  location / {{ mirror /b; proxy_pass {scheme}://a; }}
  location = /b {{ internal; proxy_pass {scheme}://b$request_uri; }}
 }}
}}
"""
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

_HAPROXY = """\
global
 nbthread 1
 maxconn 4096
defaults
 mode http
 timeout connect 5s
 timeout client 600s
 timeout server 600s
 http-reuse always
listen bench
 bind {address}{ssl}
 server a {a}{verify}
"""


class _Proxy(Server, ABC):
    """A proxy's process."""

    def __init__(self, directory: Path, port: int, settings: str) -> None:
        super().__init__(directory, [port])
        self._settings = settings

    @abstractmethod
    def command(self) -> list[str]:
        """Write the configuration file, and return the command."""

    def is_ready(self) -> bool:
        """Say whether it listens."""
        return not any(port_is_free(port) for port in self._ports)


class _Nginx(_Proxy):
    def command(self) -> list[str]:
        file = self.directory / "nginx.conf"
        file.write_text(self._settings)
        return [find_program("nginx", "nginx"), "-e", "stderr", "-p", str(self.directory), "-c", str(file)]


class _HAProxy(_Proxy):
    def command(self) -> list[str]:
        file = self.directory / "haproxy.cfg"
        file.write_text(self._settings)
        return [find_program("haproxy", "haproxy"), "-db", "-f", str(file)]


class Mirror(Contender):
    """nginx as the relay: it proxies to one backend, and mirrors to the other."""

    def __init__(self, port: int) -> None:
        super().__init__("nginx mirror", f"{LOOPBACK}:{port}")
        self._port = port

    @contextmanager
    def run(self, scenario: Scenario, backends: Backends) -> Iterator[int]:
        """Run nginx until the context is left."""
        directory = self.directory(backends)
        a, b = backends.addresses(tls=scenario.tls_out)
        settings = _MIRROR.format(
            user="user root root;" if os.geteuid() == 0 else "",
            directory=directory,
            temporary=" ".join(f"{kind}_temp_path {directory}/{kind};" for kind in _TEMPORARY),
            address=self.address,
            ssl=" ssl" if scenario.tls_in else "",
            certificate=backends.testbed.certificate,
            scheme="https" if scenario.tls_out else "http",
            a=a,
            b=b,
        )
        with _Nginx(directory, self._port, settings) as nginx:
            yield nginx.pid


class HAProxy(Contender):
    """HAProxy before one backend, with one thread: half the work of a relay."""

    copies = 1

    def __init__(self, port: int) -> None:
        super().__init__("HAProxy to one", f"{LOOPBACK}:{port}")
        self._port = port

    @contextmanager
    def run(self, scenario: Scenario, backends: Backends) -> Iterator[int]:
        """Run HAProxy until the context is left."""
        settings = _HAPROXY.format(
            address=self.address,
            ssl=f" ssl crt {backends.testbed.certificate}" if scenario.tls_in else "",
            a=backends.addresses(tls=scenario.tls_out)[0],
            verify=" ssl verify none" if scenario.tls_out else "",
        )
        with _HAProxy(self.directory(backends), self._port, settings) as haproxy:
            yield haproxy.pid
