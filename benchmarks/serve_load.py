"""How much the served model gains over a plain pyfunc that handles each row alone, timed in the same run.

    python benchmarks/serve_load.py --seconds 60
    python benchmarks/serve_load.py --seconds 20 --doors      # the last comparison alone

Starts both servers one after the other, on the same registered model and both under uvicorn: the plain pyfunc in
MLflow's scoring server, ours as `cinetune serve`. Asks both questions of the data's test split: 32 clients, 16
questions on one clip in a request. Then both doors of ours are asked one question a request, in turns: /invocations and
OpenAI's protocol. Prints a table and one line of JSON. The time given is shared by the baseline, ours at capacity, ours
at 70 % of it with arrivals at random, and the two doors.
"""

from __future__ import annotations

import argparse
import functools
import http.client
import json
import os
import platform
import queue
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CLIENTS, QUESTIONS, CLIPS = 32, 16, 8
FRESH_CLIPS = 16
LOAD = 0.7
DOOR_ROUNDS = 2
TIMEOUT_S = 600.0
CACHED_PREFIX_MB = 512


@dataclass
class Tally:
    """What clients saw: seconds of each request that was answered, and statuses of the others."""

    latencies: list[float] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    row_errors: int = 0

    def add(self, status: int, seconds: float, body: bytes) -> None:
        if status != 200:
            self.refused.append(status)
            return
        self.latencies.append(seconds)
        self.row_errors += sum(row["error"] is not None for row in json.loads(body).get("predictions", ()))


# ---- the baseline


class PlainModel:
    """Each row alone: its video decoded, its prompt read from the start, its answer generated."""

    def __init__(self, uri: str) -> None:
        import mlflow.pyfunc

        from cinetune import params
        from cinetune.frames.decoder import Decoder
        from cinetune.frames.limits import Limits
        from cinetune.frames.sampling import FrameSettings
        from cinetune.model import lookup
        from cinetune.model.base import default_device, load_base
        from cinetune.model.encoder import encoder_for
        from cinetune.model.lora import load_adapter
        from cinetune.serving import sources

        folder = Path(mlflow.artifacts.download_artifacts(uri))
        config = json.loads((folder / "artifacts" / "serving.json").read_text(encoding="utf-8"))
        wanted = params.build(params.ModelParams, config["model"], "model")
        frames = params.build(params.FramesParams, config["frames"], "frames")
        base = lookup.find_base(wanted, config["root"])
        device = default_device()
        loaded, tokenizer = load_base(params.ModelParams(str(base), "", wanted.quantization, wanted.dtype), device)
        self.metadata = mlflow.models.Model.load(str(folder))
        self._model = load_adapter(loaded, folder / "artifacts" / "adapter")
        self._encoder = encoder_for(loaded.config, tokenizer, frames.num_frames, config["max_subtitle_tokens"])
        self._settings = FrameSettings.of(frames)
        self._decoder = Decoder(Limits.of(frames))
        self._clips = sources.find_clips(config)
        self._max_new_tokens = config["max_new_tokens"]
        self._lock = threading.Lock()

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        return [self._answer(row) for row in data.to_dict("records")]

    def _answer(self, row: Mapping[str, Any]) -> dict[str, Any]:
        from cinetune.inference import scoring
        from cinetune.serving import service, sources

        content = sources.read(row["video"], self._clips, (), TIMEOUT_S)
        clip = self._decoder.read(content, self._settings)
        asked = scoring.QuestionPrompt(row["question"], tuple(row["choices"]))
        # Neither the model nor its tokenizer may be used by two threads at once.
        with self._lock:
            (reply,) = scoring.reply(
                self._model, self._encoder, row["subtitles"], clip.frames, [asked], self._max_new_tokens
            )
        return service.answered(asked, reply, "lenient")


def serve_plain(uri: str, port: int) -> None:
    import uvicorn
    from mlflow.pyfunc import scoring_server

    os.environ["MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"] = str(round(TIMEOUT_S))
    uvicorn.run(scoring_server.init(PlainModel(uri)), port=port, access_log=False, log_level="warning")


# ---- clients


def ask(port: int, rows: Sequence[Mapping[str, Any]], tally: Tally, since: float | None = None) -> None:
    """One request; `since`: when it was due, where it had to wait for a client."""
    _post(port, "/invocations", {"dataframe_records": rows}, tally, since)


def ask_chat(port: int, rows: Sequence[Mapping[str, Any]], tally: Tally) -> None:
    """The one question of a list, in OpenAI's protocol."""
    from cinetune.task import messages

    [row] = rows
    before, after = messages.write(row["subtitles"], row["question"], row["choices"])
    video = {"type": "video_url", "video_url": {"url": row["video"]}}
    content = [{"type": "text", "text": before}, video, {"type": "text", "text": after}]
    body = {"model": _model_of(port), "messages": [{"role": "user", "content": content}]}
    _post(port, "/v1/chat/completions", body, tally)


@functools.cache
def _model_of(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.request("GET", "/v1/models")
    return json.loads(connection.getresponse().read())["data"][0]["id"]


def _post(port: int, path: str, content: Mapping[str, Any], tally: Tally, since: float | None = None) -> None:
    body = json.dumps(content)
    started = time.monotonic() if since is None else since
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.request("POST", path, body, {"Content-Type": "application/json", "Connection": "close"})
    answer = connection.getresponse()
    tally.add(answer.status, time.monotonic() - started, answer.read())


@contextmanager
def server(command: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 600
        while not _is_ready(port):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the server did not start: {' '.join(command)}")
            time.sleep(0.2)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except OSError:
        return False


def closed_loop(
    port: int, requests: Callable[[], list[dict[str, Any]]], seconds: float, send: Callable[..., None] = ask
) -> tuple[Tally, float]:
    """CLIENTS that each send their next request when the last was answered; the tally and requests a second."""
    tally, until, started = Tally(), time.monotonic() + seconds, time.monotonic()

    def work() -> None:
        while time.monotonic() < until:
            send(port, requests(), tally)

    _run([work] * CLIENTS)
    return tally, len(tally.latencies) / (time.monotonic() - started)


def open_loop(port: int, requests: Callable[[], list[dict[str, Any]]], seconds: float, rate: float) -> Tally:
    """Requests that come at random, `rate` a second on average, whether or not earlier ones were answered."""
    tally: Tally = Tally()
    due: queue.Queue[float | None] = queue.Queue()
    chance = random.Random(3)

    def arrive() -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(chance.expovariate(rate))
            due.put(time.monotonic())
        for _ in range(CLIENTS):
            due.put(None)

    def work() -> None:
        while (since := due.get()) is not None:
            ask(port, requests(), tally, since)

    _run([arrive, *[work] * CLIENTS])
    return tally


def both_doors(
    port: int, requests: Callable[[], list[dict[str, Any]]], seconds: float
) -> tuple[list[Tally], dict[str, float]]:
    """Questions a second, one a request, through /invocations and through OpenAI's door, in turns."""
    rates: dict[Callable[..., None], list[float]] = {ask: [], ask_chat: []}
    tallies = []
    for send in (ask, ask_chat, ask_chat, ask) * DOOR_ROUNDS:
        tally, rate = closed_loop(port, requests, seconds / (4 * DOOR_ROUNDS), send)
        tallies.append(tally)
        rates[send].append(rate)
    single, chat = statistics.mean(rates[ask]), statistics.mean(rates[ask_chat])
    return tallies, {"chat_ratio": chat / single, "one_a_request_per_s": single, "chat_per_s": chat}


def _run(works: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def first_and_again(port: int, clips: Sequence[list[dict[str, Any]]]) -> tuple[float, float]:
    """Median seconds of the first question on a clip, and of further ones on it."""
    first, again = Tally(), Tally()
    for rows in clips:
        ask(port, rows[:1], first)
        for row in rows[1:5]:
            ask(port, [row], again)
    return statistics.median(first.latencies), statistics.median(again.latencies)


# ---- what is asked, and how much memory it takes


def read_clips(root: Path) -> list[list[dict[str, Any]]]:
    """Rows of requests, a list for each clip of the test split."""
    from cinetune.task import questions

    return [
        [
            {
                "video": f"clip:{clip.clip_id}",
                "question": question.text,
                "choices": list(question.choices),
                "subtitles": clip.subtitles,
            }
            for question in clip.questions
        ]
        for clip in questions.load(root, "test")
    ]


def resident_mb(process: subprocess.Popen[bytes]) -> float:
    """Of the server and the decoders that it started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        children += (task / "children").read_text().split()
    return sum(_resident_mb(int(pid)) for pid in {process.pid, *map(int, children)})


def _resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def measure(uri: str, root: Path, seconds: float) -> dict[str, float]:
    clips = read_clips(root)
    fresh, pool = clips[:FRESH_CLIPS], [rows[:QUESTIONS] for rows in clips[-CLIPS:]]
    chance = random.Random(1)

    def requests() -> list[dict[str, Any]]:
        return chance.choice(pool)

    port = free_port()
    with server([__file__, "--plain", uri, "--port", str(port)], port):
        plain, plain_rate = closed_loop(port, requests, 0.2 * seconds)
    port = free_port()
    with server(serve_command(uri, port), port) as process:
        first_s, again_s = first_and_again(port, fresh)
        closed_loop(port, requests, 0.05 * seconds)
        before_mb = resident_mb(process)
        ours, rate = closed_loop(port, requests, 0.2 * seconds)
        calm = open_loop(port, requests, 0.25 * seconds, LOAD * rate)
        after_mb = resident_mb(process)
        doors, door_figures = both_doors(port, lambda: [chance.choice(requests())], 0.3 * seconds)
    median, p99 = statistics.median(calm.latencies), percentile(calm.latencies, 0.99)
    return {
        "throughput_ratio": rate / plain_rate,
        **door_figures,
        "repeat_latency_ratio": first_s / again_s,
        "p99_over_median": p99 / median,
        "plain_questions_per_s": QUESTIONS * plain_rate,
        "questions_per_s": QUESTIONS * rate,
        "first_ms": 1000 * first_s,
        "again_ms": 1000 * again_s,
        "median_ms_at_70_percent": 1000 * median,
        "p99_ms_at_70_percent": 1000 * p99,
        "memory_before_mb": before_mb,
        "memory_after_mb": after_mb,
        **counted([plain, ours, calm, *doors]),
    }


def measure_doors(uri: str, root: Path, seconds: float) -> dict[str, float]:
    """The two doors alone."""
    rows = [row for clip in read_clips(root)[-CLIPS:] for row in clip[:QUESTIONS]]
    chance, port = random.Random(1), free_port()
    with server(serve_command(uri, port), port):
        closed_loop(port, lambda: [chance.choice(rows)], 0.1 * seconds)
        doors, figures = both_doors(port, lambda: [chance.choice(rows)], 0.9 * seconds)
    return {**figures, **counted(doors)}


def serve_command(uri: str, port: int) -> list[str]:
    limits = ["--cached_prefix_mb", str(CACHED_PREFIX_MB), "--timeout_s", str(TIMEOUT_S)]
    return ["-m", "cinetune", "serve", uri, "--port", str(port), *limits]


def counted(tallies: Sequence[Tally]) -> dict[str, float]:
    return {
        "requests": sum(len(tally.latencies) for tally in tallies),
        "failed": sum(len(tally.refused) + tally.row_errors for tally in tallies),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="models:/cinepile-video-llava@champion")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder with questions/ and clips/")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--doors", action="store_true", help="/invocations and OpenAI's protocol alone")
    parser.add_argument("--plain", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    if options.plain:
        serve_plain(options.plain, options.port)
        return 0
    measured = (measure_doors if options.doors else measure)(options.model, options.data, options.seconds)
    figures = {name: round(value, 3) for name, value in measured.items()}
    for name, value in figures.items():
        print(f"{name:<26}{value:>12}")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {_accelerator()}"
    print(json.dumps({"benchmark": "serve_load", "machine": machine, "figures": figures}))
    return 0


def _accelerator() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


if __name__ == "__main__":
    sys.exit(main())
