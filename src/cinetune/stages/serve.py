"""Serve a registered model over HTTP: MLflow's own scoring server behind middleware that limits it.

    python -m cinetune serve models:/cinepile-video-llava@champion --port 5000

Takes the address of a model; answers POST /invocations, GET /ping (200 once the model is ready), /metrics and
/version until it is stopped. The limits are those of the version (section `serve` of params.yaml when it was
registered); each can be changed, as in --timeout_s 30.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from cinetune import cli
from cinetune.errors import InputError
from cinetune.serving.server import listener
from cinetune.tracking import registry
from cinetune.tracking.queries import load_model

logger = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    parser = cli.Parser("serve", __doc__, has_defaults=False)
    parser.add_argument("model", help="for instance models:/cinepile-video-llava@champion")
    parser.flag("host", "the address to listen at [127.0.0.1]")
    parser.flag("port", "a whole number [5000]")
    changed = parser.read(argv)
    model, host, port = changed.pop("model"), changed.pop("host", "127.0.0.1"), changed.pop("port", "5000")
    if not port.isdecimal():
        raise InputError(f"port {port!r} is not a whole number: choose one from 1 to 65535.")
    run(model, host, int(port), changed)
    return 0


def run(model_uri: str, host: str, port: int, changed: dict[str, str]) -> None:
    """Serve until stopped. Raises InputError where the port or the model cannot be had."""
    cli.set_up_logging([], "%(asctime)s %(levelname)s %(message)s")
    logger.info("serving %s", ", ".join(f"{key} {value}" for key, value in registry.told(model_uri).items()))
    listener.serve(lambda: load_model(model_uri), host, port, changed)
