"""Serve a registered model over HTTP: MLflow's own scoring server inside an app that bounds it.

    python -m cinetune serve models:/cinepile-video-llava@champion --port 5000

Takes the address of a model; answers POST /invocations, GET /ping (200 once the model is ready), /metrics and
/version until it is stopped. The limits are those of the version (section `serve` of params.yaml when it was
registered); each can be changed, as in --timeout_s 30.
"""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
import logging
import os
import socket
from collections.abc import Sequence
from types import FrameType

from cinetune import manual, tracking
from cinetune.errors import InputError
from cinetune.params import ServeParams

logger = logging.getLogger(__name__)

# How long a stop signal waits for answers that are being made.
GRACE_S = 10


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cinetune serve", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="for instance models:/cinepile-video-llava@champion")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at [127.0.0.1]")
    parser.add_argument("--port", type=int, default=5000, help="[5000]")
    keys = [field.name for field in dataclasses.fields(ServeParams)]
    for key in keys:
        _, remark = manual.written("serve").get(key, ("", ""))
        parser.add_argument(f"--{key}", help=f"instead of the version's own: {remark}")
    options = parser.parse_args(argv)
    changed = {key: value for key in keys if (value := getattr(options, key)) is not None}
    run(options.model, options.host, options.port, changed)
    return 0


def run(model_uri: str, host: str, port: int, changed: dict[str, str]) -> None:
    """Serve until stopped. Raises InputError where the port or the model cannot be had."""
    with bind(host, port) as listener:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        if not is_loopback(host):
            logger.warning("there is no authentication: whoever reaches %s can use this server", host)
        if changed:
            os.environ["CINETUNE_SERVE"] = ";".join(f"{key}={value}" for key, value in changed.items())
        os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
        # Slow imports, after what can fail at once.
        import uvicorn
        from mlflow.pyfunc import scoring_server

        from cinetune.gateway import App, Gateway
        from cinetune.service import Service
        from cinetune.serving import StrictModel

        def load() -> tuple[App, Service]:
            model = tracking.load_model(model_uri)
            service = model.unwrap_python_model().service
            # Ours comes first, with a sentence.
            os.environ["MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"] = str(round(service.limits.timeout_s) + GRACE_S)
            return scoring_server.init(StrictModel(model)), service

        gateway = Gateway(load)
        config = uvicorn.Config(gateway, access_log=False, lifespan="on", timeout_graceful_shutdown=GRACE_S)
        server = uvicorn.Server(config)
        leave = server.handle_exit

        def stop(number: int, frame: FrameType | None) -> None:
            gateway.stop(GRACE_S / 2)
            leave(number, frame)

        server.handle_exit = stop
        gateway.on_failure = lambda: setattr(server, "should_exit", True)
        server.run(sockets=[listener])
        if gateway.failure is not None:
            raise gateway.failure


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
