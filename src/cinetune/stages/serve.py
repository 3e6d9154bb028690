"""Serve a registered model over HTTP, in MLflow's protocol: with limits, readiness and errors in one sentence.

    python -m cinetune serve models:/cinepile-video-llava@champion --port 5000

Takes the address of a model; answers POST /invocations, GET /ping (200 once the model is ready), /metrics and
/version until it is stopped. A version is served by the code that it was registered with. The limits are those of the
version (section `serve` of params.yaml when it was registered); each can be changed, as in --timeout_s 30.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cinetune import cli
from cinetune.errors import InputError
from cinetune.serving.server import listener, version_code
from cinetune.tracking import queries, registry

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
    with listener.bind(host, port) as socket:
        # The alias may move while this starts.
        fixed = queries.fixed(model_uri)
        with tempfile.TemporaryDirectory() as scratch:
            other = version_code.unless_loaded(queries.fetch_code(fixed, Path(scratch)))
        if other is not None:
            flags = [word for name, value in changed.items() for word in (f"--{name}", value)]
            version_code.start(other, ["serve", fixed, "--host", host, "--port", str(port), *flags])
        told = registry.told(fixed)
        logger.info("serving %s", ", ".join(f"{key} {value}" for key, value in told.items()))
        listener.serve(lambda: _load(fixed), socket, changed, told)


def _load(model_uri: str) -> Any:
    """The version's pyfunc, observed where a share of its questions is to become traces."""
    from cinetune.tracking.traces.writing import Writer

    loaded = queries.load_model(model_uri)
    service = loaded.unwrap_python_model().service
    if service.limits.trace_share:
        service.observe = Writer(queries.hashes(model_uri)).observe
        logger.info("a share of %g of the questions becomes traces", service.limits.trace_share)
    return loaded
