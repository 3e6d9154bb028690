"""The listening socket and the uvicorn server on it, which stops gracefully."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from types import FrameType
from typing import TYPE_CHECKING

from cinetune.errors import InputError
from cinetune.runtime.signals import handling
from cinetune.serving.server import keys

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

logger = logging.getLogger(__name__)

# How long a stop signal waits for the requests in flight.
GRACE_S = 10


def serve(
    load_model: Callable[[], PyFuncModel], listener: socket.socket, limits: Mapping[str, str], told: Mapping[str, str]
) -> None:
    """Serve on a socket until stopped; `limits` override the version's own, `told` is shown at /version as JSON.

    Raises InputError for an unusable model or key.
    """
    host, key = listener.getsockname()[0], keys.key_of_environment()
    if not is_loopback(host) and key is None:
        logger.warning(
            "there is no authentication (%s is not set): whoever reaches %s can use this server", keys.NAME, host
        )
    if limits:
        os.environ["CINETUNE_SERVE"] = ";".join(f"{key}={value}" for key, value in limits.items())
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    # Slow imports, after what can fail at once.
    import mlflow
    import uvicorn

    from cinetune.serving.server.gateway import Gateway

    version = json.dumps({**told, "mlflow": mlflow.__version__})
    gateway = Gateway(lambda: load_model().unwrap_python_model().service, version, name_of(told["model"]), key)
    # h11 bounds headers and a request's first line, which other parsers do not.
    config = uvicorn.Config(
        gateway, http="h11", ws="none", access_log=False, lifespan="on", timeout_graceful_shutdown=GRACE_S
    )
    server = uvicorn.Server(config)
    leave, hung_up = server.handle_exit, []

    def stop(number: int, frame: FrameType | None) -> None:
        gateway.stop(GRACE_S / 2)
        leave(number, frame)

    def hang_up(number: int, frame: FrameType | None) -> None:
        gateway.stop(GRACE_S / 2)
        server.should_exit = True
        hung_up.append(number)

    server.handle_exit = stop
    gateway.on_failure = lambda: setattr(server, "should_exit", True)
    # uvicorn itself knows of no other signals than SIGINT and SIGTERM, and would be left in the middle of its loop.
    with handling(signal.SIGHUP, hang_up):
        server.run(sockets=[listener])
    for number in hung_up[:1]:
        signal.raise_signal(number)
    if gateway.failure is not None:
        raise gateway.failure


def name_of(model: str) -> str:
    """What clients of OpenAI's protocol call a model: a registered one's name, or the last part of an address."""
    return PurePosixPath(model).name or "cinetune"


def bind(host: str, port: int) -> socket.socket:
    """A socket that holds the port while the model loads. Raises InputError when it cannot be had."""
    if not 0 <= port <= 65535:
        raise InputError(f"port {port} is none: choose one from 1 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"host {host!r} cannot be used: {error.strerror}.") from None
    # The port of a server that has just ended may be taken again at once.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        reason = f"port {port} on {host} cannot be used ({error.strerror})"
        raise InputError(f"{reason}: choose another with --port.") from None
    return listener


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
