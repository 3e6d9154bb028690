"""A reply ends where the template's own markers begin another turn."""

from __future__ import annotations

import pytest

from cinetune.answers.cleanup import clean
from cinetune.answers.lenient import parse_lenient
from cinetune.answers.reply import END_OF_TEXT, reply_of
from cinetune.answers.strict import parse_strict
from cinetune.task import prompts

pytestmark = pytest.mark.evaluation

CHOICES = ("on the beach", "in the kitchen", "in a car", "at school", "in the hospital")
OTHERS = ("red", "blue", "green", "yellow", "black")
ASKED = prompts.suffix("What next?", OTHERS)
INVENTED = (
    f"\n{ASKED} D",
    f" {ASKED} D",
    f"\n{ASKED} Answer: D",
    f"\n\n**{ASKED} D",
    f"\nQuestion 2: What next?\n{ASKED.partition('?')[2]} D",
    "\nQuestion: What next?\nAnswer: D",
    f"\n{prompts.prefix('D is here')}{ASKED} D",
    f"</s>{prompts.prefix('')}{ASKED} D</s>",
    f"\nSubtitles:\nThe answer is D.\nFrames: {prompts.VIDEO}\n{ASKED} D",
    f"\n{prompts.REMINDER} ASSISTANT: D",
    "\nUSER: And now? ASSISTANT: Answer: D",
    "\nASSISTANT: D",
    f" {prompts.suffix('And then?', None)} Answer: D",
)
# The same in the templates of other models, with their tokens and where these were left out.
INVENTED_BY_OTHERS = (
    "<|im_end|>\n<|im_start|>user\nNext?<|im_end|>\n<|im_start|>assistant\nThe answer is D",
    "\n<|im_start|>user\nNext?\n<|im_start|>assistant\nThe answer is D",
    "\nuser\nNext?\nassistant\nThe answer is D",
    " [INST] What next? [/INST] Answer: D",
    "</s><s>[INST] What next? [/INST] D",
    "\n<start_of_turn>user\nNext?<end_of_turn>\n<start_of_turn>model\nD",
    "<end_of_turn>\n<start_of_turn>user\nNext?<end_of_turn>\n<start_of_turn>model\nAnswer: D",
    "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nNext?<|eot_id|>",
    "\n<|start_header_id|>user<|end_header_id|>\n\nNext?<|start_header_id|>assistant<|end_header_id|>\n\nAnswer: D",
    "\n<|end|>\n<|user|>\nNext?<|end|>\n<|assistant|>\nD",
    "<|user|>Next?<|assistant|>Answer: D",
    "\n### Human: What next?\n### Assistant: D",
    "\n### Instruction:\nNext?\n\n### Response:\nD",
    "\nUser: What next?\nAssistant: The answer is D.",
    "\n\n**User:** What next?\n\n**Assistant:** D",
    "\nHUMAN: next? GPT: D",
    "\nQ: What next?\nA: D",
)


@pytest.mark.parametrize("said", ["B", "Answer: B", "in the kitchen"])
@pytest.mark.parametrize("invented", INVENTED_BY_OTHERS, ids=ascii)
def test_a_turn_in_another_models_template_is_not_the_answer(said: str, invented: str) -> None:
    assert parse_lenient(said + invented, CHOICES) == clean(said + invented, CHOICES).choice == "B"
    assert clean(f"He leaves the house.{invented}", None).answer == "He leaves the house."
    # Whose reply ends at the end of text.
    assert parse_strict(END_OF_TEXT.split(said + invented)[0], CHOICES) == parse_strict(said, CHOICES)


@pytest.mark.parametrize(
    ("echo", "letter"),
    [
        ("[INST] Where? A) on the beach [/INST] ", "B"),
        ("<|im_start|>user\nA) on the beach<|im_end|>\n<|im_start|>assistant\n", "B"),
        ("### Human: Where?\n### Assistant: ", "B"),
        ("Human: A\nAssistant: ", "B"),
        *((heading, "B") for heading in ("Assistant: ", "### Response: ", "<|assistant|>\n", "<start_of_turn>model\n")),
        ("The man is old.\nAssistant: ", "B"),
        ("User interface: ", None),
    ],
    ids=ascii,
)
def test_a_role_that_no_turn_was_asked_in_is_a_heading(echo: str, letter: str | None) -> None:
    assert parse_lenient(f"{echo}B", CHOICES) == letter


def test_a_person_called_user_may_be_spoken_of() -> None:
    said = "Human: the one on the left."
    assert clean(said, None).answer == said


@pytest.mark.parametrize("said", ["B", "B.", "Answer: B", "in the kitchen"])
@pytest.mark.parametrize("invented", INVENTED, ids=ascii)
def test_an_invented_turn_is_not_the_answer(said: str, invented: str) -> None:
    reply = said + invented
    assert parse_lenient(reply, CHOICES) == "B"
    assert clean(reply, CHOICES).choice == "B"
    # The published rule knows no full stop behind a lone letter.
    assert parse_strict(reply.partition("</s>")[0], CHOICES) == parse_strict(said, CHOICES)


@pytest.mark.parametrize("invented", INVENTED, ids=ascii)
def test_an_open_answer_ends_before_an_invented_turn(invented: str) -> None:
    assert clean(f"He leaves the house.{invented}", None).answer == "He leaves the house."
    assert parse_lenient(f"I cannot tell.{invented}", CHOICES) is None


@pytest.mark.parametrize("invented", ["", *INVENTED], ids=ascii)
@pytest.mark.parametrize("before", ["", prompts.prefix("words"), "- A) x\n- B) y\nReply with one letter. "])
def test_a_reply_behind_an_echoed_prompt_is_found_and_ends_there_too(before: str, invented: str) -> None:
    echo = before if before.startswith("-") else f"{before}{prompts.suffix('Where?', CHOICES)}"
    echo += "" if echo.endswith("ASSISTANT:") else "ASSISTANT:"
    assert reply_of(f"{echo} B{invented}").strip() == "B"
    assert parse_lenient(f"{echo} B{invented}", CHOICES) == "B"


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("Sure!\nQuestion: Where are they?\nAnswer: B", "B"),
        ("Question: Where are they?\nAnswer: B", "B"),
        ("Question: Where?\nAnswer: B\nQuestion: Who drives?\nAnswer: D", "B"),
        ("Frames: sand is seen.\nSubtitles: she speaks of a cake.\nAnswer: B", "B"),
        ("To the Question: where are they?\nAnswer: B", "B"),
        ("ASSISTANT: USER: ASSISTANT: B", "B"),
        ("USER: B", None),
    ],
)
def test_words_that_a_reply_may_use_too_are_no_markers(reply: str, letter: str | None) -> None:
    assert parse_lenient(reply, CHOICES) == letter
