"""Servers as processes on loopback, this project's and MLflow's own, and their clients."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cinetune.serving.server.listener import bind

CHOICES = ["on the beach", "in the city", "at the castle", "on the farm", "in the desert"]
# Some twenty seconds of words on two cores: a model with random weights seldom stops by itself.
LONG = {"params": {"max_new_tokens": 256}}


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    port: int
    log: Path
    # What /ping answered until it was ready; 0 for nothing.
    pings: list[int] = field(default_factory=list)

    def send(
        self, body: bytes | dict[str, Any], headers: dict[str, str] | None = None, timeout_s: float = 60
    ) -> tuple[int, dict[str, str], str]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        connection.request("POST", "/invocations", content, {"Content-Type": "application/json"} | (headers or {}))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""

    def ask(self, *rows: dict[str, Any]) -> list[dict[str, Any]]:
        status, _, text = self.send({"dataframe_records": list(rows)})
        assert status == 200, text
        return json.loads(text)["predictions"]

    def count(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics")[1], re.M)
        return float(found[1]) if found else 0.0

    def memory_mb(self, field: str) -> float:
        found = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{self.process.pid}/status").read_text(), re.M)
        assert found is not None
        return int(found[1]) / 1024

    def wait_until_idle(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.count("cinetune_requests_inside") and time.monotonic() < until:
            time.sleep(0.05)
        assert self.count("cinetune_requests_inside") == 0


def row(**values: Any) -> dict[str, Any]:
    return {"video": "clip:clip0", "question": "Where are they?", "choices": CHOICES, "subtitles": "Look."} | values


@contextmanager
def started(command: Sequence[str], port: int, root: Path, store: str, name: str, **variables: str) -> Iterator[Server]:
    environment = (
        os.environ
        | {
            "MLFLOW_TRACKING_URI": store,
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            # MLflow starts uvicorn by its name.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }
        | variables
    )
    log = root / f"{name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=root, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    server = Server(process, port, log)
    try:
        until = time.monotonic() + 120
        while (status := server.get("/ping")[0]) != 200:
            server.pings.append(status)
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=60)


def free_port() -> int:
    with bind("127.0.0.1", 0) as free:
        return free.getsockname()[1]


def ours(served_folder: Any, logged: Any, name: str, *flags: str) -> Any:
    port = free_port()
    command = ["cinetune", "serve", str(logged.folder), "--port", str(port), *flags]
    return started(command, port, served_folder[0], logged.store, name)


def plain(served_folder: Any, logged: Any, name: str, **variables: str) -> Any:
    """MLflow's own command."""
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", str(logged.folder), "--env-manager", "local", "--port", str(port)]
    return started(command, port, served_folder[0], logged.store, name, **variables)
