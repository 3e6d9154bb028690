"""Any server of OpenAI's protocol is judged like a model here, however it misbehaves: no question is lost."""

from __future__ import annotations

import base64
import io
import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from builders.judged import ModelServer, judged, text_of
from builders.projects import ROOT
from builders.refusals import sentence
from cinetune import params as params_module
from cinetune.evaluation import ablations
from cinetune.inference import evaluator, subject
from cinetune.inference.server import judging
from cinetune.params import Params
from cinetune.task import messages
from cinetune.task.questions import ClipQuestions, Question

pytestmark = pytest.mark.evaluation

CHOICES = ("a key", "a rope", "a lamp", "a map", "a ring")
KEY = "sk-very-secret-key"


def clip_of(number: int) -> ClipQuestions:
    name = f"clip{number}"
    asked = tuple(
        Question(f"{name}-{place:03d}", f"What is {number} and {place}?", CHOICES, place % 5, "Temporal", "False", "0")
        for place in range(3)
    )
    return ClipQuestions(name, f"Film {number}", "<subtitle> Look.", asked)


CLIPS = [clip_of(number) for number in range(4)]


class Store:
    """Frames of all clips but the last."""

    failures: ClassVar = {"clip3": "its video is broken"}

    def __contains__(self, clip_id: object) -> bool:
        return clip_id != "clip3"

    def with_frames(self, clips: list[ClipQuestions]) -> list[ClipQuestions]:
        return [clip for clip in clips if clip.clip_id in self]

    def read(self, clip_id: str) -> Any:
        return type("Clip", (), {"frames": frames_of(clip_id)})


def frames_of(clip_id: str) -> np.ndarray:
    return np.random.default_rng(int(clip_id[-1])).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)


@dataclass
class Judge:
    """Evaluates a server's model on these clips, with a journal in a folder."""

    folder: Path
    params: Params

    def run(self, server: ModelServer, names: tuple[str, ...] = ("none",), **changes: Any) -> tuple[Any, Any]:
        params = self.params.override("evaluate", {"model": server.name, **changes})
        asked = subject.resolve(params, names, self.folder, Path)
        made = subject.made_from(asked, params, self.folder / "frames")
        with ExitStack() as stack:
            return evaluator.predict(
                asked, params, names, made, lambda: Store(), self.folder / "checkpoints", lambda _: None, stack,
                lambda total: tqdm(total=total, disable=True),
            )  # fmt: skip

    def saved(self) -> list[dict[str, Any]]:
        parts = self.folder.glob("checkpoints/*/part-*.jsonl")
        return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    monkeypatch.setattr(judging, "BACKOFF_S", 0.001)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(evaluator.questions, "load", lambda root, split: CLIPS)
    params = params_module.load(ROOT / "params.yaml").override("data", {"root": str(tmp_path / "data")})
    questions = tmp_path / "data/questions"
    questions.mkdir(parents=True)
    (questions / "test.parquet").write_bytes(b"of these clips")
    params = params.override("evaluate", {"server_timeout_s": 30, "server_attempts": 3})
    return Judge(tmp_path, params)


def test_each_question_is_asked_with_its_clips_frames_and_read_by_all_scorers(judge: Judge) -> None:
    with judged() as server:
        tables, accounts = judge.run(server, server_prices="1 2")
    table = tables["none"]
    assert len(server.asked) == 9 and not judge.saved()
    assert table["question_id"].tolist() == [question.question_id for clip in CLIPS for question in clip.questions]
    answered = table[table["status"] == "ok"]
    assert len(answered) == 9 and set(table["reason"]) == {"", "its video is broken"}
    assert set(answered["strict"]) == set(answered["lenient"]) == set(answered["logit"]) == {"B"}
    total = np.exp(-0.5) + np.exp(-2.0)
    assert answered["p_B"].to_numpy() == pytest.approx(np.exp(-0.5) / total)
    assert answered["p_A"].to_numpy() == pytest.approx(np.exp(-2.0) / total) and set(answered["p_C"]) == {0.0}
    assert answered["letter_mass"].to_numpy() == pytest.approx(total)
    account = accounts["none"]["server"]
    assert account["models"] == ["tiny-2026"] and account["fingerprints"] == ["fp_1"]
    assert account["replies"] == {"answered": 9, "empty": 0, "refused": 0, "rejected": 0}
    assert (account["prompt_tokens"], account["completion_tokens"]) == (900, 9)
    assert account["cost"] == pytest.approx(918e-6)


def test_a_request_is_the_question_as_the_prompt_has_it(judge: Judge) -> None:
    with judged() as server:
        judge.run(server, server_requests=1)
    first = server.asked[0]
    settings = {name: value for name, value in first.items() if name != "messages"}
    assert settings == {"model": "tiny", "temperature": 0, "max_tokens": 16, "logprobs": True, "top_logprobs": 20}
    asked = messages.read(text_of(first))
    assert (asked.subtitles, asked.question, asked.choices) == ("Look.", "What is 0 and 0?", CHOICES)
    [message] = first["messages"]
    sent = [part["image_url"]["url"] for part in message["content"] if part["type"] == "image_url"]
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))) for url in sent]
    assert (np.stack(pictures) == frames_of("clip0")).all()


def test_settings_of_a_request_may_be_changed_and_left_out(judge: Judge) -> None:
    with judged() as server:
        judge.run(server, server_body='{"max_tokens": null, "max_completion_tokens": 9, "logprobs": null}')
    assert {name for name in server.asked[0] if name != "messages"} == {
        "model", "temperature", "max_completion_tokens", "top_logprobs"
    }  # fmt: skip


def test_ablations_change_what_is_sent(judge: Judge) -> None:
    names = ("none", "no_subtitles", "no_frames", "rotation_1")
    with judged() as server:
        tables, accounts = judge.run(server, names)
    assert len(server.asked) == 36 and list(tables) == list(accounts) == list(names)
    texts = [messages.read(text_of(content)) for content in server.asked]
    assert sum(not asked.subtitles for asked in texts) == 9
    assert sum(asked.choices == ablations.rotate(CHOICES, 1) for asked in texts) == 9
    assert set(tables["rotation_1"]["rotation"]) == {1}


def test_videos_are_sent_as_they_are(judge: Judge) -> None:
    clips = Path(judge.params.data.root) / "clips"
    clips.mkdir()
    for number in range(3):
        (clips / f"clip{number}.mp4").write_bytes(b"video %d" % number)
    with judged() as server:
        tables, _ = judge.run(server, server_sends="video")
        assert "changes frames" in sentence(lambda: judge.run(server, ("shuffled",), server_sends="video"))
    media = {part["video_url"]["url"] for asked in server.asked for part in asked["messages"][0]["content"][1:2]}
    assert media == {f"data:video/mp4;base64,{base64.b64encode(b'video %d' % n).decode()}" for n in range(3)}
    assert (tables["none"]["reason"] == "its video is not there").sum() == 3


# What is wrong at the first attempt on each question, and the reason by which it is counted.
PASSING = {
    "stall 2": "timeout",
    "drip": "timeout",
    "hangup": "connection",
    "half": "connection",
    "429 slow down": "status 429",
    "500 oh": "status 500",
    "502": "status 502",
    "503": "status 503",
    "408": "status 408",
    "page": "no JSON",
    "babble": "no completion",
    "nothing": "nothing",
    "endless": "too large a response",
    "brotli": "unknown coding",
    "torn": "damaged coding",
    "unpacked": "damaged coding",
    "bomb": "too large a response",
    "onion": "too many codings",
}


@pytest.mark.parametrize("behaviour", list(PASSING))
def test_a_server_that_fails_at_first_is_asked_again_and_nothing_is_lost(judge: Judge, behaviour: str) -> None:
    patience = {"server_timeout_s": 0.4, "server_attempts": 9} if "timeout" in PASSING[behaviour] else {}
    with judged(lambda content, before: "says B" if before else behaviour) as server:
        tables, accounts = judge.run(server, **patience)
    table = tables["none"]
    assert (table["status"] == "ok").sum() == 9 and set(table["lenient"].dropna()) == {"B"}
    failures = accounts["none"]["server"]["failures"]
    # On a busy machine a good reply may be late as well.
    assert set(failures) == {PASSING[behaviour]} and sum(failures.values()) >= 9


def test_questions_without_a_reply_are_told_and_asked_alone_the_next_time(judge: Judge) -> None:
    def behave(content: dict[str, Any], before: int) -> str:
        return "500" if "and 1?" in text_of(content) else "says C"

    with judged(behave) as server:
        told = sentence(lambda: judge.run(server))
        assert "3 questions have no reply (status 500 3)" in told and "allow=unanswered" in told
        assert len(judge.saved()) == 6
        server.behaviour = lambda *_: "says B"
        before = len(server.asked)
        tables, _ = judge.run(server)
        assert len(server.asked) - before == 3
    assert tables["none"]["lenient"].dropna().value_counts().to_dict() == {"C": 6, "B": 3}
    assert not judge.saved()


def test_questions_without_a_reply_may_count_as_missing(judge: Judge) -> None:
    with judged(lambda content, _: "500" if "and 1?" in text_of(content) else "says C") as server:
        tables, accounts = judge.run(server, allow="unanswered")
    table = tables["none"]
    lost = table[table["reason"] == "the server gave no reply: status 500"]
    assert len(lost) == 3 and set(lost["status"]) == {"missing_clip"}
    assert accounts["none"]["server"]["replies"]["answered"] == 6


def test_a_server_that_is_gone_ends_the_run_and_what_was_answered_stays(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "STOP_AFTER", 4)
    replies = iter(["says B"] * 3)
    with judged(lambda *_: next(replies, "hangup")) as server:
        told = sentence(lambda: judge.run(server, server_requests=1))
        assert "answered none of the last 4 questions (the last: connection)" in told and "resumes" in told
        assert len(server.asked) == 3 + 4 * 3 and len(judge.saved()) == 3
        server.behaviour = lambda *_: "says B"
        tables, _ = judge.run(server)
    assert (tables["none"]["status"] == "ok").sum() == 9


KINDS = {
    "refuses I cannot help with that.": ("refused", "I cannot help with that."),
    "says ": ("empty", ""),
    "says  \n": ("empty", ""),
    "says I cannot tell.": ("answered", "I cannot tell."),
    "400 content policy": ("rejected", ""),
    "422 too long": ("rejected", ""),
}


@pytest.mark.parametrize("behaviour", list(KINDS))
def test_refusals_and_empty_replies_are_counted_as_what_they_are(judge: Judge, behaviour: str) -> None:
    kind, raw = KINDS[behaviour]
    with judged(lambda content, _: behaviour if "and 1?" in text_of(content) else "says B") as server:
        tables, accounts = judge.run(server, server_requests=1)
    assert len(server.asked) == 9
    expected = {"answered": 6, "empty": 0, "refused": 0, "rejected": 0}
    expected[kind] += 3
    assert accounts["none"]["server"]["replies"] == expected
    odd = tables["none"].iloc[1]
    assert (odd["raw"], odd["status"], odd["lenient"]) == (raw, "ok", None)


@pytest.mark.parametrize("behaviour", ["gzip B", "members B", "deflate B", "bare B", "twice B"])
def test_replies_that_come_compressed_are_read(judge: Judge, behaviour: str) -> None:
    with judged(behaviour) as server:
        tables, accounts = judge.run(server)
    assert len(server.asked) == 9 and (tables["none"]["status"] == "ok").sum() == 9
    assert set(tables["none"]["logit"].dropna()) == {"B"} and not accounts["none"]["server"]["failures"]


FATAL = {
    "gzip 401 no such key": ("answers 401 (no such key)", "set OPENAI_API_KEY"),
    "torn 404 no such model": ("answers 404 (without a reason)", "base address"),
    "401 no such key": ("answers 401 (no such key)", "set OPENAI_API_KEY"),
    "403": ("answers 403 (no)", "set OPENAI_API_KEY"),
    "404 no such model": ("answers 404 (no such model)", "base address"),
    "405": ("answers 405", "base address"),
    "moved http://127.0.0.1:9/v1": ("answers 302 (without a reason)", "that it leads to"),
}


@pytest.mark.parametrize("behaviour", list(FATAL))
def test_what_no_other_question_would_change_ends_the_run_at_once(judge: Judge, behaviour: str) -> None:
    with judged(behaviour) as server:
        told = sentence(lambda: judge.run(server, server_requests=2))
    assert all(part in told for part in FATAL[behaviour]) and len(server.asked) <= 2


def test_settings_that_a_server_rejects_from_the_start_are_no_replies(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "STOP_AFTER", 3)
    with judged("400 logprobs are not supported") as server:
        told = sentence(lambda: judge.run(server, server_requests=1))
    assert "400: logprobs are not supported" in told and len(server.asked) == 3 and not judge.saved()


def test_requests_run_side_by_side_and_no_more_than_were_asked_for(judge: Judge) -> None:
    with judged(lambda content, before: "says B" if before else "500") as server:
        judge.run(server, server_requests=3)
    assert 1 <= server.most_inside <= 3


def test_the_key_is_sent_and_neither_saved_nor_told(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level("DEBUG")
    with judged(lambda content, _: "500" if "and 1?" in text_of(content) else "echo") as server:
        told = sentence(lambda: judge.run(server))
        assert len(judge.saved()) == 6 and KEY not in json.dumps(judge.saved())
        server.behaviour = lambda *_: f"401 the key {KEY} is unknown"
        told += sentence(lambda: judge.run(server))
        server.behaviour = lambda *_: "echo"
        tables, accounts = judge.run(server)
    assert {headers["Authorization"] for headers in server.headers_seen} == {f"Bearer {KEY}"}
    assert "[key]" in told and KEY not in told and KEY not in caplog.text
    assert KEY not in tables["none"].to_json() and KEY not in json.dumps(accounts)


BAD_NAMES = {
    "openai:": "names no server",
    "openai:#tiny": "names no server",
    "openai:http://127.0.0.1:8000/v1": "names no model",
    "openai:ftp://127.0.0.1/v1#tiny": "names no server",
    "openai:http://127.0.0.1:port/v1#tiny": "names no server",
    "openai:http://me:pass@host/v1#tiny": "neither a user nor a query",
    "openai:http://host/v1?key=abc#tiny": "neither a user nor a query",
    "openai:http://ho st/v1#tiny": "names no server",
    "openai:http://host/v1\n#tiny": "names no server",
}


@pytest.mark.parametrize("name", list(BAD_NAMES))
def test_addresses_that_cannot_be_asked_are_refused(judge: Judge, name: str) -> None:
    params = judge.params.override("evaluate", {"model": name})
    told = sentence(lambda: subject.resolve(params, ("none",), judge.folder, Path))
    assert BAD_NAMES[name] in told and "pass" not in told and "abc" not in told


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"server_body": "{"}, "server_body is not JSON"),
        ({"server_body": "[1]"}, "must be a JSON object"),
        ({"server_body": '{"messages": []}'}, "may not set 'messages'"),
        ({"server_prices": "1"}, "two prices"),
        ({"server_prices": "1 x"}, "two prices"),
        ({"server_prices": "1 -2"}, "two prices"),
        ({"server_prices": "nan 1"}, "two prices"),
        ({"allow": "everything"}, "must be empty"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_asked(
    judge: Judge, changes: dict[str, Any], reason: str
) -> None:
    with judged() as server:
        assert reason in sentence(lambda: judge.run(server, **changes))
    assert not server.asked


def test_another_server_model_or_setting_is_another_evaluation(judge: Judge) -> None:
    def made(**changes: Any) -> Any:
        params = judge.params.override("evaluate", {"model": "openai:http://a/v1#b"} | changes)
        return subject.made_from(subject.resolve(params, ("none",), judge.folder, Path), params, judge.folder)

    first = made()
    assert first["server"]["url"] == "http://a/v1" and first["server"]["model"] == "b"
    assert made(server_requests=9, server_rate=5, server_timeout_s=3) == first
    for changes in (
        {"model": "openai:http://a/v2#b"}, {"model": "openai:http://a/v1#c"}, {"server_sends": "video"},
        {"server_body": '{"seed": 1}'}, {"max_new_tokens": 3},
    ):  # fmt: skip
        assert made(**changes) != first
