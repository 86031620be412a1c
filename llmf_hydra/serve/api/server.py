"""The server's process: its address, its log, its end."""

import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from llmf_hydra.config.groups.serve import ServeConfig
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.serve.api.app import build
from llmf_hydra.serve.engine import Engine

log = logging.getLogger(__name__)
PATIENCE = 10  # seconds that answers on their way have when the server is asked to end


def bound(serve: ServeConfig) -> socket.socket:
    """A socket at the address of the API, which doesn't answer yet. Raises Refused where it can't be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            serve.host, serve.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        what = f"is no address of this machine: {error.strerror}"
        raise Refused(
            [Problem("serve.host", serve.host, what, "name 127.0.0.1, or 0.0.0.0 for all")]
        ) from error
    door = socket.socket(family, kind, protocol)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind(address)
    except OSError as error:
        door.close()
        key, value = ("serve.port", serve.port) if error.errno != 99 else ("serve.host", serve.host)
        what = f"cannot be bound on {serve.host}: {error.strerror}"
        raise Refused([Problem(key, value, what, "name another one, or 0 for a free port")]) from error
    return door


def serve(cfg: Config, engine: Engine, door: socket.socket) -> None:
    """Serve at a socket until SIGINT or SIGTERM; answers on their way are given some seconds."""
    app = build(cfg, engine)
    settings = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=PATIENCE,
        server_header=False,
    )
    settings.load()
    host, port = door.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info("serving %s at http://%s:%s/v1; Ctrl-C ends it", app.state.service.model, shown, port)
    if cfg.serve.api_key is None and not _is_loopback(host):
        log.warning("warning: whoever reaches %s:%s may use it; API_KEY asks for a key", shown, port)
    server = uvicorn.Server(settings)
    with ended_by_signals(server):
        server.run(sockets=[door])


def _is_loopback(host: str) -> bool:
    return host == "::1" or host.startswith("127.")


@contextmanager
def ended_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM end a server, those too that come before uvicorn listens to them.

    It raises the ones that it was ended by once more: here they have done what they were sent for.
    """

    def end(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
