"""The connection to MLflow's store: created where it is missing, its errors in one sentence."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from cinetune.errors import InputError, reason_of
from cinetune.runtime.signals import ENDING

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "cinetune"
FILE = "sqlite:///"
STORE = f"{FILE}mlflow.db"
CONNECT_TIMEOUT_S = 10.0


def open_store() -> MlflowClient:
    """A client of the store, which is created first where it is the project's own and missing."""
    # An unreachable server must cost seconds, not the minutes of MLflow's own retries.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_TRACKING_URI", STORE)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    for name in ("mlflow.store", "mlflow.tracking", "mlflow.tracing", "mlflow.system_metrics"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = mlflow.get_tracking_uri()
    with reaching():
        _check_reachable(uri)
    # Several processes that start on a missing file at once would all migrate it.
    with reaching(), one_at_a_time():
        client = mlflow.MlflowClient()
        if uri.startswith(FILE):
            default = client.get_experiment("0")
            # `mlflow run .` without a name goes to experiment 0: in the project's own store that is this one.
            is_own = Path(uri.removeprefix(FILE)).resolve() == Path(STORE.removeprefix(FILE)).resolve()
            if is_own and default.name == "Default" and client.get_experiment_by_name(EXPERIMENT) is None:
                client.rename_experiment("0", EXPERIMENT)
        return client


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Locks a store that is a file, for the block; a server orders its clients itself."""
    file = file_of_store()
    if file is None:
        yield
        return
    with FileLock(f"{file}.lock"):
        yield


def file_of_store() -> Path | None:
    """The database of a store that is a file; None for a server."""
    import mlflow

    uri = mlflow.get_tracking_uri()
    return Path(uri.removeprefix(FILE)) if uri.startswith(FILE) else None


@cache
def _check_reachable(uri: str) -> None:
    """Raises where a server does not answer at all: MLflow would retry for minutes."""
    if uri.startswith("http"):
        import requests

        # One whose certificate is not trusted has answered; MLflow has settings of its own for that.
        with suppress(requests.exceptions.SSLError):
            requests.head(uri, timeout=CONNECT_TIMEOUT_S)


def experiment_id(client: MlflowClient) -> str:
    if os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return os.environ["MLFLOW_EXPERIMENT_ID"]
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    known = client.get_experiment_by_name(name)
    if known is not None:
        return known.experiment_id
    try:
        return client.create_experiment(name)
    except MlflowException:
        # Another process may have made it in the meantime.
        known = client.get_experiment_by_name(name)
        if known is None:
            raise
        return known.experiment_id


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Signals that come within the block take effect at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {name: signal.signal(name, lambda number, _: received.append(number)) for name in ENDING}
    try:
        yield
    finally:
        for name, handler in handlers.items():
            signal.signal(name, signal.SIG_DFL if handler is None else handler)
        for number in received[:1]:
            os.kill(os.getpid(), number)


@contextmanager
def reaching(what: str = "the tracking store cannot be used") -> Iterator[None]:
    """Turns the store's errors into one sentence."""
    try:
        yield
    except store_errors() as error:
        address = os.environ.get("MLFLOW_TRACKING_URI", STORE)
        proxy = " A proxy is set: name the server's host in NO_PROXY." if _goes_through_proxy(address) else ""
        raise InputError(f"{what} ({reason_of(error)}): check MLFLOW_TRACKING_URI, now {address!r}.{proxy}") from None


def _goes_through_proxy(address: str) -> bool:
    from requests.utils import get_environ_proxies

    return address.startswith("http") and bool(get_environ_proxies(address))


def store_errors() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, RequestException, SQLAlchemyError, OSError
