"""Model text in, readable answers out."""

from __future__ import annotations

import pytest

from builders.readings import READINGS
from cinetune.answers.cleanup import CleanAnswer, clean

pytestmark = pytest.mark.evaluation


@pytest.mark.parametrize("text", [reading[0] for reading in READINGS], ids=lambda value: repr(value)[:40])
def test_an_open_answer_is_one_line_without_outer_space(text):
    answer, choice = clean(text, None).answer, clean(text, None).choice
    assert choice is None
    assert answer == " ".join(answer.split())
    assert "*" not in answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("USER: <video>\nWhat is it? ASSISTANT: The man runs. He is late.</s>", "The man runs. He is late."),
        ("ASSISTANT: He   runs\n\nfast", "He runs"),
        ("He runs. USER: more", "He runs."),
        ("**Answer:** He runs.", "He runs."),
        ("What happens? A dog barks", "A dog barks"),
        ("Question: what happens?\nHe goes home", "He goes home"),
        ("A) run\nB) hide\nC) sing\nHe runs", "He runs"),
        ("He runs. Options: A) run B) hide", "He runs."),
        ("The man runs the man runs the man runs the man", "The man runs"),
        ("no no no no no no", "no"),
        ("very very good", "very very good"),
        ("He said Mr. Smith left. Then he slept.", "He said Mr. Smith left. Then he slept."),
        ("J. R. R. Tolkien writes. Then he eats.", "J. R. R. Tolkien writes. Then he eats."),
        ("he waits", "he waits"),
        ("It cost 2.5 pounds. Cheap.", "It cost 2.5 pounds. Cheap."),
        ("He runs. He hides. He runs. He hides. He ru", "He runs. He hides."),
        ("He runs. She waits for", "He runs."),
        ("She waits for the", "She waits for the"),
        ("Who runs? He runs. Why? He is late!", "He runs. He is late!"),
        ('He said "no." She left', 'He said "no."'),
        ("</s>", ""),
        ("...", ""),
        ("ok\x00ay then", "ok ay then"),
    ],
)
def test_an_open_answer_keeps_the_models_own_whole_sentences_once(text, answer):
    assert clean(text, None) == CleanAnswer(answer, None)


def test_a_chosen_option_is_shown_on_one_line():
    assert clean("Answer: A", ["two\n  lines", "one"]) == CleanAnswer("two lines", "A")
