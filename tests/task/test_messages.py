"""A question as a chat message's text is read back as it was; other texts are read as people write them."""

from __future__ import annotations

import pytest

from cinetune.task import messages, prompts
from cinetune.task.description import Task
from cinetune.task.messages import AskedText

pytestmark = pytest.mark.serving

CHOICES = ("on the beach", "in the city", "at the castle", "on the farm", "in the desert")
PLAIN = [
    ("", "Where are they?", CHOICES),
    ("<subtitle> Look.\n<subtitle> There.", "Who is it?", None),
    ("Frames:\nSubtitles:\nQuestion: Who?\n- A) he\nReply with one letter.", "Where are they?", CHOICES),
    ("x", "Who of these?\nLook again: it is\n\n- a riddle", CHOICES),
    ("x", "A. Who?", ("B) he", "- C) she", "it (A)", "Question: who?", "none")),
    ("x", "Who?", ("a\nb", "c\n- d", "e\n\nf", "Reply with one letter.", "A")),
    ("x", "Who? USER: <video> ASSISTANT:", ("<s>", "a", "b", "c", "d")),
    ("x", "من هذا؟", ("هو", "هي", "🙂", "ΑΒ", "Ａ")),
    ("x", "Answer:", tuple("EDCBA")),
    ("x", "Who?", ("he", "she")),
    ("x", "Who?", tuple(f"number {place}" for place in range(10))),
]


def neutral(text: str) -> str:
    return prompts.neutralise(text.strip())


def one_line(text: str) -> str:
    return " ".join(text.split())


def round_trip(subtitles: str, question: str, choices: tuple[str, ...] | None) -> AskedText:
    return messages.read("\n".join(messages.write(subtitles, question, choices)))


@pytest.mark.parametrize(("subtitles", "question", "choices"), PLAIN)
def test_what_was_written_is_read_back_exactly(subtitles: str, question: str, choices: tuple[str, ...] | None) -> None:
    wanted = AskedText(prompts.spoken(subtitles), neutral(question), choices and tuple(map(neutral, choices)))
    assert round_trip(subtitles, question, choices) == wanted


TRAPS = [
    ("Who\nQuestion: is it?", CHOICES),
    ("Who\n- A) is it?", CHOICES),
    ("Who?", ("a", "b\n- C) c", "d", "e", "f")),
    ("Who?", ("a", "b", "c", "d", "e\nReply with one letter.\n- F) g")),
    ("Who?", ("a", "b\nQuestion: c", "d", "e", "f")),
    ("Who?\r\nAnd why?", ("a\r\nb", "c", "d", "e", "f")),
    ("Who?\n- A) is it\nReply with one letter.", None),
]


@pytest.mark.parametrize(("question", "choices"), TRAPS)
def test_lines_that_would_be_read_as_others_are_put_on_one(question: str, choices: tuple[str, ...] | None) -> None:
    found = round_trip("Look.", question, choices)
    assert " ".join(found.question.split()) == " ".join(question.split())
    assert [" ".join(text.split()) for text in found.choices or ()] == [
        " ".join(text.split()) for text in choices or ()
    ]


def test_the_text_is_the_prompts_own() -> None:
    before, after = messages.write("<subtitle> Look.", "Where are they?", CHOICES)
    whole = prompts.prefix("Look.") + prompts.suffix("Where are they?", CHOICES)
    assert f"USER: {before} <video>\n{after} ASSISTANT:" == whole


def test_a_task_without_subtitles_has_no_line_for_them() -> None:
    task = Task(subtitles=False)
    before, after = messages.write("", "Where are they?", CHOICES, task)
    assert before.startswith(task.told) and "Subtitles" not in before
    assert messages.read(f"{before}\n{after}") == AskedText("", "Where are they?", CHOICES)


OTHERS = [
    ("Who is it?", AskedText("", "Who is it?", None)),
    ("Who is it?\nA. he\nB. she", AskedText("", "Who is it?", ("he", "she"))),
    ("Who is it?\nA) he\n\nB) she\n\nAnswer with a letter.", AskedText("", "Who is it?", ("he", "she"))),
    ("Who is it?\n(A) he\n(B) she\n(C) it\nThe best answer is:", AskedText("", "Who is it?", ("he", "she", "it"))),
    ("Who is it?\r\na) he\r\nb) she\r\n", AskedText("", "Who is it?", ("he", "she"))),
    ("Who is it?\n**A.** he\n**B.** she", AskedText("", "Who is it?", ("he", "she"))),
    ("Think.\n\nQuestion: Who?\nOptions:\nA: he\nB: she", AskedText("", "Who?", ("he", "she"))),
    ("A film.\nIt is old.\nWho?\n- A) he\n- B) she", AskedText("", "A film.\nIt is old.\nWho?", ("he", "she"))),
    ("Who?\nA. he\nC. she", AskedText("", "Who?\nA. he\nC. she", None)),
    ("A. Lincoln is who?", AskedText("", "A. Lincoln is who?", None)),
    ("Who? A) he B) she", AskedText("", "Who? A) he B) she", None)),
    ("Subtitles:\nLook.\nWho?\nA. he\nB. she", AskedText("Look.", "Who?", ("he", "she"))),
    ("Subtitles:\nLook.\n\nThere.\n\nWho?", AskedText("Look.\n\nThere.", "Who?", None)),
    (
        "Watch.\n\n**Subtitles:**\n<subtitle> Look.\n- A) no\n\nWho?\n- A) he\n- B) she\n\nReply so.",
        AskedText("<subtitle> Look.\n- A) no", "Who?", ("he", "she")),
    ),
]


@pytest.mark.parametrize(("text", "asked"), OTHERS)
def test_texts_of_others_are_read_as_they_are_meant(text: str, asked: AskedText) -> None:
    assert messages.read(text) == asked


@pytest.mark.parametrize(
    "piece", ["\n", " ", "*", "\n\n", "A. x\n", "Question:", "\nQuestion: ", "Subtitles:\n", "- A) \n", "(", "\n \n"]
)
def test_the_longest_texts_are_read_at_once(piece: str) -> None:
    # In quadratic time this would take until the test is stopped.
    assert messages.read(f"x{piece * (320_000 // len(piece))}y").question.endswith("y")
