"""What a version's card tells."""

from __future__ import annotations

import pytest

from cinetune.serving import model_card
from cinetune.task.description import CINEPILE, Task

pytestmark = pytest.mark.serving


CONFIG = {
    "model": {"base": "hub/base", "revision": "abc", "quantization": "nf4", "dtype": "bfloat16"},
    "frames": {"num_frames": 8, "size": 224},
    "embeds_base": True,
    **dict.fromkeys(("base_sha256", "frame_settings", "prompt_hash"), "0"),
}


def test_a_card_of_cinepile_tells_its_terms() -> None:
    tags = {"licence": CINEPILE.licence, "data": "CinePile-v1", "git.commit": "c0ffee", "dvc.questions": "beef.dir"}
    card = model_card.text(CONFIG, None, tags)
    assert "non-commercially" in card and "`c0ffee`" in card and "`beef.dir`" in card and "hub/base` at abc" in card
    assert "It is in this version" in card and "Not evaluated" in card
    assert "about movie scenes in English, from a few frames and the subtitles" in card


def test_a_card_tells_its_own_task() -> None:
    task = Task(subject="yards", subtitles=False, max_choices=4, licence="MIT")
    card = model_card.text(CONFIG | {"task": task.to_dict()}, None, {"licence": "MIT", "data": "Yards"})
    assert "fine-tuned on yards" in card and "about yards, from a few frames;" in card and "of\n2 to 4 options" in card
    assert "CinePile" not in card and "movie" not in card and "subtitles" not in card
