"""What the tiny base is told to know."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from builders.pretraining import SETTINGS, SMALL
from cinetune.model.encoder import Encoder, encoder_for
from cinetune.pretraining import architecture, dataset, examination, lessons

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def examined(encoder: Encoder) -> dict[str, float]:
    """Figures of a base that has learned nothing."""
    torch.manual_seed(0)
    model = architecture.make_model(SMALL, SETTINGS.size, encoder.tokenizer)
    own = encoder_for(model.config, encoder.tokenizer, SETTINGS.num_frames, 512)
    frames = np.stack([dataset.look(number, 1, 2, SETTINGS) for number in range(6)])
    return examination.examine(model, own, SMALL, torch.from_numpy(frames), first=0)


def test_a_base_that_has_learned_nothing_knows_nothing(examined: dict[str, float]) -> None:
    assert all(0 <= share <= 1 for share in examined.values())
    for form in (*lessons.FORMATS, "binding", "description"):
        assert examined[f"held_out/{form}"] < 0.2
    assert examined["held_out/cinepile_format"] < 0.45, "one of five, give or take six clips"


def test_the_card_says_what_people_ask_for(examined: dict[str, float]) -> None:
    card = architecture.card(examined)
    assert card["cinepile_format_accuracy"] == pytest.approx(examined["held_out/cinepile_format"], abs=1e-4)
    assert all(0 <= share <= 1 for share in card.values())
    assert {"open_accuracy", "own_format_accuracy", "letter_binding_accuracy"} < card.keys()


def test_an_answer_counts_only_when_all_of_it_and_its_end_are_right(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a model that gives every target away, and one that gives all but the end tokens away."""
    model = architecture.make_model(SMALL, SETTINGS.size, encoder.tokenizer)
    own = encoder_for(model.config, encoder.tokenizer, SETTINGS.num_frames, 512)
    frames = torch.from_numpy(np.stack([dataset.look(0, 1, 2, SETTINGS)]))

    def figures(knows_the_end: bool) -> dict[str, float]:
        def answers(_: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            targets = batch["targets"]
            if not len(targets):
                return torch.zeros(len(batch["slots"]), len(encoder.tokenizer))
            logits = torch.nn.functional.one_hot(targets, len(encoder.tokenizer)).float()
            logits[:, encoder.tokenizer.eos_token_id] *= knows_the_end
            return logits

        monkeypatch.setattr("cinetune.pretraining.examination.answer_logits", answers)
        return examination.examine(model, own, SMALL, frames, first=0)

    learned = ("open", "label", "words_and_label", "binding", "lookup", "description", "account")
    assert {figures(knows_the_end=True)[f"held_out/{form}"] for form in learned} == {1.0}
    assert {figures(knows_the_end=False)[f"held_out/{form}"] for form in learned} == {0.0}
