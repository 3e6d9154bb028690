"""What a version's card tells."""

from __future__ import annotations

import pytest

from cinetune.task.description import CINEPILE

pytestmark = pytest.mark.serving


def test_a_card_of_cinepile_tells_its_terms() -> None:
    from cinetune.serving import model_card

    config = {
        "model": {"base": "hub/base", "revision": "abc", "quantization": "nf4", "dtype": "bfloat16"},
        "frames": {"num_frames": 8, "size": 224},
        "embeds_base": True,
        **dict.fromkeys(("base_sha256", "frame_settings", "prompt_hash"), "0"),
    }
    tags = {"licence": CINEPILE.licence, "data": "CinePile-v1", "git.commit": "c0ffee", "dvc.questions": "beef.dir"}
    card = model_card.text(config, None, tags)
    assert "non-commercially" in card and "`c0ffee`" in card and "`beef.dir`" in card and "hub/base` at abc" in card
    assert "It is in this version" in card and "Not evaluated" in card
