"""Where a study is reached: this machine alone, unless told otherwise; and the server that listens there."""

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

import uvicorn

from moslora.errors import ConfigError, OutputError

EVERYWHERE = ("0.0.0.0", "::")
SECONDS_TO_FINISH = 3


def listen(host: str, *, port: int) -> socket.socket:
    """A socket that listens at an address of this machine; port 0 takes any that is free.

    Raises OutputError for an address that is not this machine's, or is in use.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # Only of a socket that says TCP does asyncio turn off Nagle's delay, 40 ms a page.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
            listening.listen()  # whoever comes before the server is ready waits
        except OSError:
            listening.close()
            raise
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot listen on {host}, port {port} ({reason}); give another --host or --port") from error
    return listening


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origins_of(host: str, *, port: int, url: str | None = None) -> list[str]:
    """The origins that a server goes by, the one to send around first.

    `url` is what it is reached by from outside, such as a tunnel's. Raises ConfigError for one that is no origin.
    """
    found = [] if url is None else [_origin(url)]
    if host in EVERYWHERE:
        found += [_http(_own_address(), port), _http(socket.gethostname().lower(), port)]
    elif not is_loopback(host):
        found.append(_http(host.lower(), port))
    if host in EVERYWHERE or is_loopback(host):
        found += [_http(name, port) for name in ("127.0.0.1", "localhost", "::1")]
    return list(dict.fromkeys(found))


def server_of(app: Any) -> uvicorn.Server:
    """A server for an application; it logs no requests, which would be everybody's links."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
    )
    return uvicorn.Server(config)


def run(app: Any, listening: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    server_of(app).run(sockets=[listening])


def _origin(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path not in ("", "/") or parts.query:
        raise ConfigError(f"--url {url} is not the address of a site; write for example https://judging.example.org")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _http(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}" if port == 80 else f"http://{shown}:{port}"


def _own_address() -> str:
    """The address by which the network around reaches this machine; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"
