"""The server over real HTTP: what is refused and how, many clients at once, clients that leave, a stop signal."""

from __future__ import annotations

import base64
import http.client
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builders.servers import recording
from cinetune.serving.server.listener import bind

pytestmark = [pytest.mark.serving, pytest.mark.slow]

CHOICES = ["on the beach", "in the city", "at the castle", "on the farm", "in the desert"]
# Some twenty seconds of words on two cores: a model with random weights seldom stops by itself.
LONG = {"params": {"max_new_tokens": 256}}


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

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

    def wait_until_idle(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.count("cinetune_requests_inside") and time.monotonic() < until:
            time.sleep(0.05)
        assert self.count("cinetune_requests_inside") == 0


def row(**values: Any) -> dict[str, Any]:
    return {"video": "clip:clip0", "question": "Where are they?", "choices": CHOICES, "subtitles": "Look."} | values


@contextmanager
def started(command: Sequence[str], port: int, root: Path, store: str, name: str) -> Iterator[Server]:
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": store,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        # MLflow starts uvicorn by its name.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    log = root / f"{name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=root, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    server = Server(process, port, log)
    try:
        until = time.monotonic() + 120
        while server.get("/ping")[0] != 200:
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


@pytest.fixture(scope="module")
def plain(served_folder: Any, logged: Any) -> Iterator[Server]:
    """MLflow's own command."""
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", str(logged.folder), "--env-manager", "local", "--port", str(port)]
    with started(command, port, served_folder[0], logged.store, "plain") as server:
        yield server


@pytest.fixture(scope="module")
def guarded(served_folder: Any, logged: Any) -> Iterator[Server]:
    with ours(served_folder, logged, "guarded", "--cached_prefix_mb", "64") as server:
        yield server


@pytest.fixture(scope="module")
def narrow(served_folder: Any, logged: Any) -> Iterator[Server]:
    """One with little room and little patience."""
    with ours(
        served_folder, logged, "narrow", "--max_waiting", "2", "--timeout_s", "3", "--max_body_mb", "1"
    ) as server:
        yield server


@pytest.fixture(params=["plain", "guarded"])
def either(request: pytest.FixtureRequest) -> Server:
    return request.getfixturevalue(request.param)


def upload(root: Path, name: str = "clip0") -> str:
    return base64.b64encode((root / "data" / "clips" / f"{name}.mp4").read_bytes()).decode()


def test_rows_are_answered_as_in_this_process(served_folder: Any, served: Any, either: Server) -> None:
    rows = [
        row(),
        row(question="Who is it?", choices=None),
        row(video="../secret.mp4"),
        row(video=upload(served_folder[0], "clip1")),
    ]
    found = either.ask(*rows)
    for item, expected in zip(found, served.predict(rows), strict=True):
        assert item | {"confidence": None} == expected | {"confidence": None}
        assert item["confidence"] == pytest.approx(expected["confidence"], abs=1e-5)


def test_mlflows_other_formats_are_understood(guarded: Server) -> None:
    open_question, choice = row(choices=None), row()
    expected = guarded.ask(open_question, choice)
    bodies: list[dict[str, Any]] = [
        {"inputs": [open_question, choice]},
        {"dataframe_split": {"columns": list(row()), "data": [list(open_question.values()), list(choice.values())]}},
    ]
    for body in bodies:
        status, _, text = guarded.send(body)
        assert status == 200 and json.loads(text)["predictions"] == expected, text
    assert guarded.send({"inputs": [open_question]})[0] == 200
    columns = {"video": ["clip:clip0"] * 2, "question": ["Who?"] * 2}
    assert len(json.loads(guarded.send({"inputs": columns})[2])["predictions"]) == 2
    assert guarded.send({"inputs": [[1, 2]]})[0] == guarded.send({"inputs": "x"})[0] == 400


BAD_REQUESTS = {
    "257 rows": ({"dataframe_records": [row()] * 257}, 400, "256 rows, got 257"),
    "1000 rows": ({"dataframe_records": [row()] * 1000}, 400, "256 rows, got 1000"),
    "no rows": ({"dataframe_records": []}, 400, ""),
    "no video": ({"dataframe_records": [{"question": "Who?"}]}, 400, "video"),
    "choices as text": ({"dataframe_records": [row(choices="on the beach")]}, 400, "choices must be a list"),
    "a parameter that is no number": ({"inputs": [row()], "params": {"max_new_tokens": "many"}}, 400, "max_new_tokens"),
    "a parameter out of range": ({"inputs": [row()], "params": {"max_new_tokens": 0}}, 400, "between 1 and 256"),
    "too many frames": ({"inputs": [row()], "params": {"frames": 99}}, 400, "frames must be between 1 and"),
    "an unknown scorer": ({"inputs": [row()], "params": {"scorer": "mine"}}, 400, "lenient, strict, logit"),
    "a list": (b"[]", 400, "JSON object"),
    "no object": (b"3", 400, "JSON object"),
    "no format": ({}, 400, "JSON object"),
    "no JSON": (b"{", 400, "not JSON"),
    "no text": (b"\xff\xfe\x00", 400, "not JSON"),
    "nothing": (b"", 400, "not JSON"),
}  # fmt: skip
# What MLflow alone lets pass, or answers in its own way.
BAD_OUTSIDE = {
    "an unknown column": ({"dataframe_records": [row(subtitle="?")]}, 400, "'subtitle' is not known", {}),
    "an unknown parameter": ({"inputs": [row()], "params": {"temperature": 1}}, 400, "'temperature' is not known", {}),
    "another content type": (b"x", 415, "content types", {"Content-Type": "text/html"}),
    "another charset": (b"{}", 415, "UTF-8", {"Content-Type": "application/json; charset=latin-1"}),
    "a broken table": (b"video,question\n\"", 400, "", {"Content-Type": "text/csv"}),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD_REQUESTS))
def test_a_bad_request_shows_no_trace_and_the_next_one_is_answered(either: Server, name: str) -> None:
    body, expected, _ = BAD_REQUESTS[name]
    status, _, text = either.send(body)
    assert status == expected, text
    assert "Traceback" not in text and "stack_trace" not in text and not re.search(r"\.py\b", text)
    assert either.ask(row())[0]["error"] is None


@pytest.mark.parametrize("name", [*BAD_REQUESTS, *BAD_OUTSIDE])
def test_the_gateway_tells_a_bad_request_in_one_sentence(guarded: Server, name: str) -> None:
    body, expected, words, headers = (*BAD_REQUESTS[name], {}) if name in BAD_REQUESTS else BAD_OUTSIDE[name]
    status, answered, text = guarded.send(body, {"X-Request-Id": "mine-1"} | headers)
    content = json.loads(text)
    sentence = content["error"]
    assert status == expected and words in sentence and sentence.endswith(".") and "\n" not in sentence, text
    assert len(sentence) < 400 and not re.search(r"Traceback|stack_trace|\.py\b|/site-packages|<class|DataFrame", text)
    assert content["request_id"] == answered["x-request-id"] == "mine-1"
    assert guarded.ask(row())[0]["error"] is None


def test_what_has_no_content_type_or_another_method_or_place_is_refused(guarded: Server) -> None:
    with socket.create_connection(("127.0.0.1", guarded.port)) as raw:
        raw.sendall(b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
        assert b" 415 " in raw.recv(4096)
    assert guarded.get("/invocations")[0] == 405
    assert guarded.get("/nothing")[0] == 404
    assert guarded.get("/version")[0] == 200


@pytest.fixture
def listener() -> Iterator[tuple[int, list[str]]]:
    """A server that records who comes."""
    with recording(lambda request: request.send_error(404)) as found:
        yield found


def test_bad_videos_are_row_errors_and_open_nothing_else(
    guarded: Server, served_folder: Any, listener: tuple[int, list[str]]
) -> None:
    port, hits = listener
    link = f"http://127.0.0.1:{port}/clip.mp4"
    good = (served_folder[0] / "data/clips/clip0.mp4").read_bytes()
    contents = {
        "10 bytes": b"0123456789",
        "words": b"not a video at all " * 50,
        "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "a zip": b"PK\x03\x04" + bytes(200),
        "ffconcat": f"ffconcat version 1.0\nfile {link}\nfile /etc/passwd\n".encode(),
        "HLS": f"#EXTM3U\n#EXTINF:1,\n{link}\n#EXT-X-ENDLIST\n".encode(),
        "SDP": f"v=0\ns=x\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n".encode(),
        "cut off": good[: len(good) // 2],
        "cut off early": good[:300],
        "zeros in the middle": good[:200] + bytes(300) + good[500:],
    }  # fmt: skip
    sources = {name: base64.b64encode(content).decode() for name, content in contents.items()}
    sources |= {
        "empty": "",
        "no base64": "%%%",
        "a path": "/etc/passwd",
        "a link": link,
        "a file link": "file:///etc/passwd",
        "a script": f"concat:{link}|{link}",
        "data": "data:video/mp4;base64,AAAA",
        "above": "clip:../../secret",
        "unknown": "clip:nowhere",
    }
    found = guarded.ask(row(), *[row(video=source) for source in sources.values()], row(video="clip:clip1"))
    for name, item in zip(sources, found[1:-1], strict=True):
        error = item["error"]
        assert error and error.endswith(".") and "\n" not in error and len(error) < 400, name
        assert str(served_folder[0]) not in error and "root:" not in error, name
    assert found[0]["error"] is None and found[-1]["error"] is None
    assert hits == []


def test_numbers_and_nothing_where_text_should_be_are_row_errors(guarded: Server) -> None:
    body = b'{"dataframe_records": [{"video": "clip:clip0", "question": NaN}, {"video": 3, "question": "Who?"}]}'
    status, _, text = guarded.send(body)
    assert status == 200 and all(item["error"] for item in json.loads(text)["predictions"])


def test_64_clients_at_once_get_the_answers_of_one(guarded: Server) -> None:
    rows = [row(video=f"clip:clip{n % 2}", question=f"Where is number {n % 8}?") for n in range(64)]
    alone = [guarded.ask(item)[0] for item in rows[:8]]
    packs = guarded.count("cinetune_packs_total")
    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(lambda item: guarded.ask(item)[0], rows))
    for number, item in enumerate(found):
        assert item | {"confidence": None} == alone[number % 8] | {"confidence": None}
        assert item["confidence"] == pytest.approx(alone[number % 8]["confidence"], abs=1e-5)
    assert guarded.count("cinetune_packs_total") - packs < 40, "those that wait together are answered together"


def test_a_client_that_hangs_up_is_not_worked_for(guarded: Server) -> None:
    content = json.dumps({"dataframe_records": [row(choices=None)] * 200} | LONG).encode()
    head = f"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    for sent in (content[:50], content, content):
        with socket.create_connection(("127.0.0.1", guarded.port)) as raw:
            raw.sendall(head.encode() + b"\r\n\r\n" + sent)
            time.sleep(0.5)
    started_at = time.monotonic()
    assert guarded.ask(row())[0]["error"] is None
    guarded.wait_until_idle(5)
    assert time.monotonic() - started_at < 8
    assert guarded.count('cinetune_requests_total{status="499"}') >= 3


def test_one_too_many_is_told_at_once_and_a_late_answer_stops_costing(narrow: Server) -> None:
    heavy = {"dataframe_records": [row(choices=None)] * 200} | LONG
    with ThreadPoolExecutor(2) as pool:
        late = [pool.submit(narrow.send, heavy) for _ in range(2)]
        time.sleep(1)
        started_at = time.monotonic()
        status, headers, text = narrow.send({"inputs": [row()]})
        assert (status, headers["retry-after"]) == (503, "1") and "waiting already" in text
        assert time.monotonic() - started_at < 1
        assert narrow.get("/ping")[0] == 200
        for future in late:
            status, _, text = future.result()
            assert status == 504 and "time for this request is over" in text
    assert narrow.ask(row())[0]["error"] is None
    narrow.wait_until_idle(2)


def test_a_body_above_the_limit_is_refused_whether_it_says_so_or_not(narrow: Server) -> None:
    large = b"x" * (3 << 20)
    for encode_chunked in (False, True):
        connection = http.client.HTTPConnection("127.0.0.1", narrow.port, timeout=10)
        body = iter([large]) if encode_chunked else large
        connection.request(
            "POST", "/invocations", body, {"Content-Type": "application/json"}, encode_chunked=encode_chunked
        )
        answer = connection.getresponse()
        assert answer.status == 413 and "above the limit of 1 MB" in answer.read().decode()
    assert narrow.ask(row())[0]["error"] is None


def test_a_request_that_does_not_arrive_loses_its_place(narrow: Server) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", narrow.port), timeout=20) as raw:
        raw.sendall(head)
        assert b" 408 " in raw.recv(4096)
    assert narrow.ask(row())[0]["error"] is None


def test_a_server_says_when_it_is_ready_and_a_stop_signal_ends_it_in_mid_prediction(
    served_folder: Any, logged: Any
) -> None:
    with ours(served_folder, logged, "stopped", "--host", "127.0.0.1") as server, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.send, {"dataframe_records": [row(choices=None)] * 200} | LONG)
        time.sleep(1.5)
        started_at = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.get("/ping")[0] in (0, 503)
        assert server.process.wait(timeout=40) == 128 + signal.SIGTERM
        assert time.monotonic() - started_at < 15
        assert waiting.result()[0] == 504
    assert "Traceback" not in server.log.read_text()


def test_a_model_that_cannot_be_loaded_ends_the_server_with_one_sentence(tmp_path: Path) -> None:
    port = free_port()
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    command = [sys.executable, "-m", "cinetune", "serve", "models:/none@champion", "--port", str(port)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: model 'models:/none@champion' cannot be loaded")
