"""The server over real HTTP: what is refused and how, many clients at once, clients that leave, a stop signal."""

from __future__ import annotations

import base64
import http.client
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import openai
import pytest

from builders import serving as servers
from builders.chats import message
from builders.servers import recording
from builders.serving import LONG, Server, free_port, ours, row, started
from cinetune import provenance

pytestmark = [pytest.mark.serving, pytest.mark.slow]


@pytest.fixture(scope="module")
def plain(served_folder: Any, logged: Any) -> Iterator[Server]:
    with servers.plain(served_folder, logged, "plain") as server:
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
    for item, expected in zip(found, served.predict(rows).to_dict("records"), strict=True):
        assert item | {"confidence": None} == expected | {"confidence": None}
        assert item["confidence"] == pytest.approx(expected["confidence"], abs=1e-5)


def test_mlflows_other_formats_are_understood(guarded: Server) -> None:
    rows = [row(choices=None), row()]
    expected = guarded.ask(*rows)
    columns = {name: [item[name] for item in rows] for name in row()}
    bodies: list[dict[str, Any]] = [
        {"inputs": rows},
        {"inputs": columns},
        {"instances": rows},
        {"dataframe_split": {"columns": list(row()), "data": [list(item.values()) for item in rows]}},
    ]
    for body in bodies:
        status, _, text = guarded.send(body)
        assert status == 200 and json.loads(text)["predictions"] == expected, text


BAD_REQUESTS = {
    "257 rows": ({"dataframe_records": [row()] * 257}, 400, "256 rows, got 257"),
    "no rows": ({"dataframe_records": []}, 400, "no rows"),
    "no video": ({"dataframe_records": [{"question": "Who?"}]}, 400, "video"),
    "a parameter that is no number": ({"inputs": [row()], "params": {"max_new_tokens": "many"}}, 400, "max_new_tokens"),
    "a parameter out of range": ({"inputs": [row()], "params": {"max_new_tokens": 0}}, 400, "between 1 and 256"),
    "too many frames": ({"inputs": [row()], "params": {"frames": 99}}, 400, "frames must be between 1 and"),
    "an unknown scorer": ({"inputs": [row()], "params": {"scorer": "mine"}}, 400, "lenient, strict, logit"),
    "parameters in a list": ({"inputs": [row()], "params": [1]}, 400, "params must be an object"),
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
    "parameters under another name": ({"inputs": [row()], "parameters": {}}, 400, "'parameters' is not known", {}),
    "a deep body": (b'{"inputs":' + b"[" * 100_000, 400, "not JSON", {}),
    "another content type": (b"x", 415, "application/json", {"Content-Type": "text/html"}),
    "another charset": (b"{}", 415, "UTF-8", {"Content-Type": "application/json; charset=latin-1"}),
    "a table in CSV": (b"video,question\n", 415, "application/json", {"Content-Type": "text/csv"}),
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
    upgrade = (
        b"Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    )
    for request, status in (
        (b"GET /invocations", b" 405 "),
        (b"POST /invocations", b" 415 "),
        (b"GET /ping", b" 200 "),
    ):
        with socket.create_connection(("127.0.0.1", guarded.port), timeout=5) as raw:
            raw.sendall(request + b" HTTP/1.1\r\n" + upgrade + b"dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
            assert status in raw.recv(4096)
    assert guarded.get("/invocations")[0] == 405
    assert guarded.get("/nothing")[0] == guarded.get("/docs")[0] == guarded.get("/openapi.json")[0] == 404
    status, told = guarded.get("/version")
    assert status == 200 and {"model", "mlflow"} <= json.loads(told).keys()
    connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=10)
    connection.request("HEAD", "/ping")
    assert connection.getresponse().status == 200


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


def test_numbers_and_nothing_where_text_should_be_are_row_errors(either: Server) -> None:
    rows = '{"video": "clip:clip0", "question": NaN}, {"video": 3, "question": "Who?"}, ' + json.dumps(row())
    holed = json.dumps(row(choices=["on the beach", None, "at the castle", "on the farm", "in the desert"]))
    status, _, text = either.send(f'{{"dataframe_records": [{rows}, {holed}]}}'.encode())
    assert status == 200, text
    *wrong, right, without = json.loads(text)["predictions"]
    assert all(item["error"] for item in wrong) and right["error"] is None
    assert without["error"] == "a choice must be text, got null."


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
        assert (status, headers["retry-after"]) == (503, "1") and "requests are waiting" in text
        assert time.monotonic() - started_at < 1
        assert narrow.get("/ping")[0] == 200
        for future in late:
            status, _, text = future.result(60)
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_server_says_when_it_is_ready_and_a_stop_signal_ends_it_in_mid_prediction(
    served_folder: Any, logged: Any, number: signal.Signals
) -> None:
    with ours(served_folder, logged, "stopped", "--host", "127.0.0.1") as server, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.send, {"dataframe_records": [row(choices=None)] * 200} | LONG)
        time.sleep(1.5)
        server.process.send_signal(number)
        time.sleep(0.5)
        assert server.get("/ping")[0] in (0, 503)
        assert server.process.wait(timeout=40) == 128 + number
        assert waiting.result(60)[0] == 503
    assert "Traceback" not in server.log.read_text()


def peak_of(server: Server, body: bytes) -> tuple[int, str, float]:
    """Status and text of a response, and by how many MB the server's memory rose above its rest meanwhile."""
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    rest = server.memory_mb("VmRSS")
    status, _, text = server.send(body)
    return status, text, server.memory_mb("VmHWM") - rest


def asked(**values: Any) -> bytes:
    return json.dumps({"inputs": [row(**values)]}, ensure_ascii=False).encode()


def many_keys() -> bytes:
    """As many as the limit of commas lets pass."""
    return b",".join(b'"%d":0' % number for number in range(490_000))


LIMIT = (32 << 20) - 1000
HOSTILE = {
    "lists": (b'{"inputs":[' + b"[]," * (LIMIT // 3) + b"[]]}", 400, "commas and brackets"),
    "objects": (b'{"inputs":[' + b'{"":0},' * (LIMIT // 7) + b"{}]}", 400, "commas and brackets"),
    "lists below the limit": (b'{"inputs":[' + b"[]," * 249_000 + b"[]]}", 400, "rows must be objects"),
    "rows below the limit": (b'{"dataframe_records":[' + b'{"":0},' * 249_000 + b"{}]}", 400, "256 rows, got 249001"),
    "lists in a row": (b'{"inputs":[{"video":"","question":[' + b"[]," * 240_000 + b"0]}]}", 200, "got text"),
    "depth": (b'{"inputs":' + b"[" * 400_000, 400, "not JSON"),
    "keys": (b"{" + many_keys() + b"}", 400, "key '0' is not known"),
    "parameters": (b'{"inputs":[],"params":{' + many_keys() + b"}}", 400, "parameter '0' is not known"),
    "digits": (b'{"inputs":' + b"1" * LIMIT + b"}", 400, "not JSON"),
    "a video that is none": (asked(video="QUJD" * (LIMIT // 4 - 100)), 200, "video"),
    "a video of wide letters": (asked(video="A" * (LIMIT - 300) + "\U0001f600"), 400, "base64"),
    "a question": (asked(question="A" * (LIMIT - 300)), 200, "characters"),
    "eight texts of wide letters": (
        json.dumps({"inputs": [row(question="A" * (3 << 20) + "\U0001f600") for _ in range(10)]}).encode(), 200, "chara"
    ),
    "an unknown column": (b'{"inputs":[{"' + b"A" * (LIMIT - 50) + b'":"x"}]}', 400, "is not known"),
    "a scorer": (b'{"inputs":[{}],"params":{"scorer":"' + b"A" * (LIMIT - 100) + b'"}}', 400, "lack the column"),
    "escapes": (b'{"inputs":[{"video":"' + rb"\n" * (LIMIT // 2 - 50) + b'","question":"x"}]}', 200, "video"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(HOSTILE))
def test_no_body_within_the_limit_takes_much_memory(guarded: Server, name: str) -> None:
    body, expected, words = HOSTILE[name]
    status, text, risen_mb = peak_of(guarded, body)
    assert (status, words in text) == (expected, True), text[:500]
    assert risen_mb < 200 and len(text) < 2000
    assert guarded.ask(row())[0]["error"] is None


def test_a_version_is_served_by_its_own_code(served_folder: Any, logged: Any, tmp_path: Path) -> None:
    """Of other code than that of the checkout: here it answers with another word."""
    version = tmp_path / "version"
    shutil.copytree(logged.folder, version)
    module = version / "code/cinetune/serving/service.py"
    text = module.read_text(encoding="utf-8")
    assert text.count('return f"{shown}."') == 1
    module.write_text(text.replace('return f"{shown}."', 'return f"{shown} as this version says."'))
    port = free_port()
    command = ["cinetune", "serve", str(version), "--port", str(port), "--timeout_s", "50"]
    with started(command, port, served_folder[0], logged.store, "own") as server:
        assert server.ask(row(choices=[]))[0]["error"].endswith("as this version says.")
    digest = provenance.source_digest(package=version / "code/cinetune")
    kept = served_folder[0] / "cache/code" / digest / "cinetune"
    assert provenance.source_digest(package=kept) == digest


def test_a_share_of_the_questions_becomes_traces(served_folder: Any, logged: Any) -> None:
    client = mlflow.MlflowClient(logged.store)

    def found() -> list[Any]:
        return client.search_traces(locations=[experiment.experiment_id for experiment in client.search_experiments()])

    with ours(served_folder, logged, "traced", "--trace_share", "1") as server:
        answers = server.ask(row(), row(video=upload(served_folder[0], "clip1"), choices=None))
        until = time.monotonic() + 60
        while len(found()) < len(answers) and time.monotonic() < until:
            time.sleep(0.5)
    traces = found()
    said = [next(span for span in trace.data.spans if span.parent_id is None) for trace in traces]
    assert sorted(span.attributes["answer"] for span in said) == sorted(answer["answer"] for answer in answers)
    steps = {span.name for span in traces[0].data.spans}
    assert {"fetching", "decoding", "reading", "answering"} <= steps
    assert all(trace.info.tags["version"] == str(logged.folder) for trace in traces)
    assert all(len(trace.info.tags["adapter_sha256"]) == 64 for trace in traces)


def test_a_model_that_cannot_be_loaded_ends_the_server_with_one_sentence(tmp_path: Path) -> None:
    port = free_port()
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    command = [sys.executable, "-m", "cinetune", "serve", "models:/none@champion", "--port", str(port)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: model 'models:/none@champion' cannot be loaded")


def test_a_key_in_the_environment_guards_both_doors(served_folder: Any, logged: Any) -> None:
    port = free_port()
    command = ["cinetune", "serve", str(logged.folder), "--port", str(port)]
    with started(command, port, served_folder[0], logged.store, "keyed", CINETUNE_API_KEY="s3cret") as server:
        asked = {"inputs": [row()]}
        assert [server.send(asked, {"Authorization": f"Bearer {key}"})[0] for key in ("s3cret", "other")] == [200, 401]
        assert server.send(asked)[0] == 401 and server.get("/v1/models")[0] == 401
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="s3cret", max_retries=0)
        [model] = client.models.list()
        assert model.id == logged.folder.name
        said = client.chat.completions.create(model=model.id, messages=[message()])
        assert said.choices[0].message.content == server_raw(server)
    assert "s3cret" not in server.log.read_text()


def server_raw(server: Server) -> str:
    """What the model says of the same question at the other door."""
    status, _, text = server.send({"inputs": [row()]}, {"Authorization": "Bearer s3cret"})
    assert status == 200
    return json.loads(text)["predictions"][0]["raw"]
