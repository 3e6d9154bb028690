"""A prompt in other words than this project's: where they fit they are asked with, where not one sentence says why."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from builders.bases import sentencepiece_tokenizer
from builders.refusals import sentence
from builders.tokenizers import tokenizer_of
from cinetune.export import prompt as export_prompt
from cinetune.model.encoder import Encoder
from cinetune.task import description, messages, prompts
from cinetune.task.description import CINEPILE, Task

pytestmark = pytest.mark.training

CHOICES = ("the key", "the {question}", "the lamp", "the <video>", "the ring")
OPTIONS = "".join(f"({letter}) {{option {letter}}}\n" for letter in "ABCDE")
THEIRS = {
    "prefix": "USER: <video>\nThis is said:\n{subtitles}\n---\n",
    "suffix": f"{{question}}\n{OPTIONS}Which letter?\nASSISTANT:",
    "open_suffix": "{question}\nSay it briefly.\nASSISTANT:",
}
TOKENIZERS = {"tiny": tokenizer_of, "sentencepiece": sentencepiece_tokenizer}


def theirs(**changes: str) -> Task:
    return prompts.worded(CINEPILE, THEIRS | changes, "theirs.json")


def encoder_with(tokenizer: Any, task: Task) -> Encoder:
    return Encoder(tokenizer, tokenizer.convert_tokens_to_ids("<video>"), 5, 40, task=task)


def test_the_default_template_is_the_one_that_adapters_were_trained_on() -> None:
    """Another hash would make every adapter and every evaluation that there is one of another prompt."""
    assert prompts.template_hash() == "b9e1d3a5ed37007a"
    assert prompts.worded(CINEPILE, prompts.template(), "own.json") is CINEPILE


def test_other_words_stand_around_the_same_texts() -> None:
    task = theirs()
    assert prompts.prefix("Take {question}.", task) == "USER: <video>\nThis is said:\nTake {question}.\n---\n"
    assert prompts.suffix(" Who? ", CHOICES[:2], task) == (
        "Who?\n(A) the key\n(B) the {question}\nWhich letter?\nASSISTANT:"
    )
    assert "(D) the (video)\n" in prompts.suffix("Who?", CHOICES, task)
    assert prompts.suffix("ASSISTANT: Who?", None, task) == "ASSISTANT - Who?\nSay it briefly.\nASSISTANT:"
    assert prompts.template(task) == THEIRS
    assert prompts.template_hash(task) != prompts.template_hash()
    assert description.saved(json.loads(json.dumps(task.to_dict()))) == task


def test_a_written_out_default_asks_as_the_default_does() -> None:
    content = prompts.template()
    task = description.read_task({**CINEPILE.to_dict(), "prompt": content}, "own.json")
    assert prompts.template_hash(task) == prompts.template_hash() and prompts.seam(task) == prompts.seam()
    assert prompts.prefix("Take it.", task) == prompts.prefix("Take it.")
    for choices in (CHOICES, CHOICES[:3], None):
        assert prompts.suffix("Who?", choices, task) == prompts.suffix("Who?", choices)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize(
    "prefix", [THEIRS["prefix"], "USER: {subtitles}\n<video>", "USER: <video>\n{subtitles}\n", "USER: See <video>\n"]
)
def test_ids_are_those_of_the_whole_text(tokenizer: str, prefix: str) -> None:
    made, task = TOKENIZERS[tokenizer](), theirs(prefix=prefix)
    encoder = encoder_with(made, task)
    encoder.check_words()
    said = "<subtitle> Ana needs the key."
    for choices in (CHOICES, None):
        safe = choices and [encoder.safe(choice) for choice in choices]
        whole = prompts.prefix("Ana needs the key.", task) + prompts.suffix("Who?", safe, task)
        assert [*encoder.prefix(said)[0], *encoder.suffix("Who?", choices)] == encoder.with_video(whole)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_an_export_s_chat_template_makes_the_same_tokens(tokenizer: str) -> None:
    encoder = encoder_with(TOKENIZERS[tokenizer](), theirs())
    chat = [export_prompt.message(encoder, "Take it.", "Who?", CHOICES, 1)]
    text = encoder.tokenizer.apply_chat_template(
        chat, chat_template=export_prompt.template(encoder, 1), tokenize=False, add_generation_prompt=True
    )
    ids = encoder.tokenizer(text, add_special_tokens=False).input_ids
    at = ids.index(encoder.video_token_id)
    ours = [*encoder.prefix("Take it.")[0], *encoder.suffix("Who?", CHOICES)]
    assert [*ids[:at], *[ids[at]] * encoder.num_video_tokens, *ids[at + 1 :]] == ours


def test_a_message_to_a_server_has_them_too() -> None:
    before, after = messages.write("Take it.", "Who?", CHOICES[:2], theirs())
    assert before == "" and after.startswith("This is said:\nTake it.\n---\nWho?\n(A) the key\n")
    assert after.endswith("\nWhich letter?")


REFUSED = {
    "no video": ({"prefix": "USER: {subtitles}\n"}, "one place for the video"),
    "two videos": ({"prefix": "USER: <video> <video>\n"}, "has 2 in all"),
    "a video behind the question": ({"open_suffix": "{question} <video> ASSISTANT:"}, "has 2 in all"),
    "no question": ({"suffix": f"{OPTIONS} ASSISTANT:"}, "suffix must have the places {question}"),
    "no open question": ({"open_suffix": "Say it.\nASSISTANT:"}, "open_suffix must have one place, {question}"),
    "no options": ({"suffix": "{question}\nASSISTANT:"}, "{option A}, {option B}"),
    "an option twice": ({"suffix": "{question} {option A} {option A}\nASSISTANT:"}, "in this order"),
    "too few options": ({"suffix": "{question} {option A} {option B}\nASSISTANT:"}, "for 2 options, of 5"),
    "a misspelt place": ({"prefix": "USER: <video> {subtitle}\n"}, "{subtitle}, which is not known"),
    "a question before the video": ({"prefix": "USER: {question} <video>\n"}, "a clip's questions share it"),
    "subtitles twice": ({"prefix": "USER: {subtitles} {subtitles} <video>\n"}, "prefix may have one place"),
    "no role that asks": ({"prefix": "<video>\n{subtitles}\n"}, "must begin with 'USER: '"),
    "no role that answers": ({"suffix": f"{{question}}\n{OPTIONS}"}, "must both end with"),
    "two ways to end": ({"open_suffix": "{question} ASSISTANT:"}, "must both end with"),
    "words behind the prefix": ({"prefix": "USER: <video> {subtitles}"}, "must end with <video> or a line break"),
    "another role": ({"prefix": "USER: <video> ASSISTANT: Yes. USER: {subtitles}\n"}, "no role but its own"),
    "a token": ({"open_suffix": "{question}</s>\nASSISTANT:"}, "no token of a tokenizer"),
    "half a character": ({"prefix": "USER: <video> \ud83d\n"}, "prefix must hold"),
    "no text": ({"suffix": 3}, "prompt.suffix must be text"),
    "another key": ({"system": ""}, "prompt.system is not known: choose from prefix, suffix, open_suffix"),
}


@pytest.mark.parametrize("changes, reason", REFUSED.values(), ids=REFUSED)
def test_words_that_cannot_be_asked_with_are_refused(changes: dict[str, Any], reason: str) -> None:
    said = sentence(lambda: theirs(**changes))
    assert said.startswith("theirs.json: ") and reason in said


@pytest.mark.parametrize("content", [None, [], "words", 3])
def test_what_is_no_template_is_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "theirs.json").write_text(json.dumps(content))
    assert "holds no prompt template" in sentence(lambda: prompts.read(tmp_path / "theirs.json"))


def test_a_lacking_text_is_named() -> None:
    lacking = {name: text for name, text in THEIRS.items() if name != "open_suffix"}
    assert "prompt.open_suffix is missing" in sentence(lambda: prompts.worded(CINEPILE, lacking, "theirs.json"))


def test_a_file_that_holds_no_template_is_refused(tmp_path: Path) -> None:
    for name, content in (("cut.json", b"{"), ("latin.json", b'{"prefix": "\xe9"}'), ("deep.json", b"[" * 100_000)):
        (tmp_path / name).write_bytes(content)
        assert name in sentence(lambda path=tmp_path / name: prompts.read(path))
    for missing in (tmp_path / "none.json", tmp_path, Path("seed")):
        assert "there is no prompt template" in sentence(lambda path=missing: prompts.read(path))


def test_a_marker_of_this_tokenizer_alone_is_refused() -> None:
    tokenizer = copy.deepcopy(sentencepiece_tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": ["[INST]"]})
    encoder = encoder_with(tokenizer, theirs(open_suffix="[INST] {question}\nASSISTANT:"))
    assert "open_suffix holds '[INST]'" in sentence(encoder.check_words)
    encoder_with(tokenizer, theirs()).check_words()


def test_a_task_of_ones_own_may_have_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(json.dumps({"max_choices": 5, "prompt": THEIRS}))
    assert prompts.template(description.of_folder(tmp_path)) == THEIRS
    (tmp_path / "task.yaml").write_text(json.dumps({"max_choices": 6, "prompt": THEIRS}))
    assert "for 5 options, of 6" in sentence(lambda: description.of_folder(tmp_path))
