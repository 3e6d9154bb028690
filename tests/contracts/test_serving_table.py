"""docs/serving.md compares MLflow's own server with this project's: each line of its table is tried on both."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from builders.projects import ROOT
from builders.serving import CHOICES, LONG, Server, ours, plain, row

pytestmark = [pytest.mark.serving, pytest.mark.slow]

LIMITS = {"max_waiting": "2", "timeout_s": "4", "max_body_mb": "1"}
HEAD = "POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
HEAVY = {"dataframe_records": [row(choices=None)] * 200} | LONG
FORMS: list[dict[str, Any]] = [
    {"dataframe_records": [row()]},
    {"dataframe_split": {"columns": list(row()), "data": [list(row().values())]}},
    {"inputs": [row()]},
    {"inputs": {name: [value] for name, value in row().items()}},
    {"instances": [row()]},
]
BAD: list[Any] = [
    b"{", b"", b"[]", b'{"inputs":' + b"[" * 100_000, b'{"inputs": ' + b"1" * 5000 + b"}", {}, {"inputs": "x"},
    {"inputs": [[1, 2]]}, {"dataframe_records": [row(), 3]},
    {"dataframe_split": {"columns": ["a", "a"], "data": [[1]]}},
    {"inputs": [row()], "params": [1]}, {"inputs": [row()], "params": {"frames": "x"}}, {"dataframe_records": []},
    {"inputs": [row(question="\ud83d")]}, {"inputs": [row(choices=[[["a"]], 1, {}])]}, {"inputs": [row()] * 300},
    {"inputs": [row()], "params": {"scorer": "mine"}}, {"inputs": [row()], "params": {"frames": 10**4000}},
]  # fmt: skip


def answers(server: Server, *rows: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    status, _, text = server.send({"dataframe_records": list(rows), **more})
    assert status == 200, text
    return json.loads(text)["predictions"]


def begin(server: Server, sent: bytes, num_bytes: int) -> socket.socket:
    """A request of which so much is sent."""
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=12)
    raw.sendall(HEAD.format(num_bytes).encode() + sent)
    return raw


def status_of(raw: socket.socket) -> int:
    """0 where there is no response in time."""
    try:
        return int((raw.recv(4096).split() or [b"", b"0"])[1])
    except TimeoutError:
        return 0


def is_late_in_time(server: Server) -> bool:
    started = time.monotonic()
    return server.send(HEAVY)[0] == 504 and time.monotonic() - started < 30 and not answers(server, row())[0]["error"]


def costs_its_row_alone(server: Server) -> bool:
    bad, good = answers(server, row(choices=CHOICES[:4]), row())
    return bad["error"] is not None and good["error"] is None


def knows_null_from_none(server: Server) -> bool:
    (answer,) = answers(server, row(choices=[*CHOICES[:4], None]))
    return answer["error"] == "a choice must be text, got null."


def takes_null_parameters(server: Server) -> bool:
    return [item["error"] for item in answers(server, row(), params={"frames": None, "scorer": None})] == [None]


def takes_all_forms(server: Server) -> bool:
    expected = answers(server, row())
    found = [server.send(form) for form in FORMS]
    return all(status == 200 and json.loads(text)["predictions"] == expected for status, _, text in found)


def shows_no_trace(server: Server) -> bool:
    texts = [server.send(body)[2] for body in BAD]
    return not any(re.search(r"Traceback|stack_trace|\.py\b|site-packages", text) for text in texts)


def takes_json_alone(server: Server) -> bool:
    types = ("text/csv", "application/vnd.apache.parquet")
    return [server.send(b"a,b\n1,2\n", {"Content-Type": kind})[0] for kind in types] == [415, 415]


def refuses_the_unknown(server: Server) -> bool:
    bodies = ({"inputs": [row(a=1)]}, {"inputs": [row()], "params": {"a": 1}}, {"inputs": [row()], "a": 1})
    return [server.send(body)[0] for body in bodies] == [400] * 3


def speaks_in_sentences(server: Server) -> bool:
    status, headers, text = server.send({"inputs": []}, {"X-Request-Id": "mine"})
    try:
        content = json.loads(text)
    except ValueError:
        return False
    return status == 400 and content.get("request_id") == headers.get("x-request-id") == "mine" and "error" in content


def limits_uploads(server: Server) -> bool:
    large = server.send(json.dumps({"inputs": [row(video="A" * (2 << 20))]}).encode())[0]
    with begin(server, b"{", 100) as raw:
        return (large, status_of(raw)) == (413, 408)


def answers_beside_halves(server: Server) -> bool:
    with ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(begin(server, b"{", 100))
        return answers(server, row())[0]["error"] is None


def refuses_before_the_body(server: Server) -> bool:
    with ThreadPoolExecutor(2) as pool:
        inside = [pool.submit(server.send, HEAVY) for _ in range(2)]
        time.sleep(1)
        with begin(server, b"{", 100_000) as raw:
            found = status_of(raw)
        assert all(future.result(60)[0] == 504 for future in inside)
    return found == 503


def stops_for_the_gone(server: Server) -> bool:
    content = json.dumps(HEAVY).encode()
    clients = [begin(server, content, len(content)) for _ in range(2)]
    # One that leaves before its body was taken in costs neither server anything.
    time.sleep(1)
    for raw in clients:
        raw.close()
    time.sleep(0.5)
    is_free = server.send({"inputs": [row()]})[0] == 200
    time.sleep(5)
    return is_free


def is_ready_when_it_says_so(server: Server) -> bool:
    return 503 in server.pings


LINES: dict[str, Callable[[Server], bool]] = {
    "a request past its deadline is cancelled": is_late_in_time,
    "an invalid row gets its own `error`, the others are answered": costs_its_row_alone,
    'a null among choices is an error and never the word "None"': knows_null_from_none,
    "a parameter that is null is the version's own": takes_null_parameters,
    "JSON in all of MLflow's forms": takes_all_forms,
    "no stack traces in responses to JSON": shows_no_trace,
    "CSV and Parquet are rejected (415)": takes_json_alone,
    "unknown columns, parameters and keys are rejected": refuses_the_unknown,
    "errors are one sentence with a request id": speaks_in_sentences,
    "limits on body size (413) and upload time (408)": limits_uploads,
    "half-sent bodies take no place": answers_beside_halves,
    "requests over capacity are rejected (503) before their body is read": refuses_before_the_body,
    "a disconnected client's request is cancelled": stops_for_the_gone,
    "`/ping` answers 503 while the model loads or the server stops": is_ready_when_it_says_so,
    "`/metrics`": lambda server: server.get("/metrics")[0] == 200,
    "`/docs` and `/openapi.json` are closed": lambda server: (
        {server.get(path)[0] for path in ("/docs", "/openapi.json")} == {404}
    ),
}


def table() -> dict[str, tuple[str, str]]:
    text = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    [lines] = re.findall(r"^\| \| `mlflow models serve` \| .*\n\|.*\n((?:\|.*\n)+)", text, re.M)
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines.splitlines()]
    return {line: (theirs, mine) for line, theirs, mine in rows}


@pytest.fixture(scope="module")
def both(served_folder: Any, logged: Any) -> Iterator[tuple[Server, Server]]:
    flags = [word for name, value in LIMITS.items() for word in (f"--{name}", value)]
    settings = ";".join(f"{name}={value}" for name, value in LIMITS.items())
    with (
        plain(served_folder, logged, "table-plain", CINETUNE_SERVE=settings) as theirs,
        ours(served_folder, logged, "table-ours", *flags) as mine,
    ):
        yield theirs, mine


def test_every_line_has_a_trial() -> None:
    assert list(table()) == list(LINES)


@pytest.mark.parametrize("line", list(LINES))
def test_a_line_of_the_table_is_so(both: tuple[Server, Server], line: str) -> None:
    found = tuple("yes" if LINES[line](server) else "no" for server in both)
    assert found == table()[line]
