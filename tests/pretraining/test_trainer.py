"""Pretraining writes a base that loads."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from builders.pretraining import SETTINGS, SMALL
from builders.tokenizers import tokenizer_of
from cinetune.model.base import load_base
from cinetune.model.encoder import encoder_for
from cinetune.params import ModelParams, PretrainParams
from cinetune.pretraining import architecture, examination, trainer

pytestmark = pytest.mark.training


def test_the_learning_rate_rises_stays_and_falls_to_nothing() -> None:
    factors = [trainer.learning_rate_factor(step, 1000, 0.2) for step in range(1000)]
    assert factors[0] == pytest.approx(0.01) and max(factors) == 1.0
    assert factors[100:800] == [1.0] * 700
    assert factors[-1] == pytest.approx(1 / 200) and factors[900] == pytest.approx(0.5)
    assert trainer.learning_rate_factor(999, 1000, 0.0) == 1.0, "a training that another goes on from does not fall"


def test_pretraining_writes_a_base_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "HELD_OUT_CLIPS", 2)
    monkeypatch.setattr(trainer, "HELD_OUT_CLIPS", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    reports: list[tuple[int, dict[str, float]]] = []
    params: PretrainParams = dataclasses.replace(SMALL, out=str(tmp_path / "base"))
    figures = trainer.pretrain(params, SETTINGS, "cpu", lambda step, values: reports.append((step, values)))
    held = yaml.safe_load((tmp_path / "base" / "pretraining.json").read_text())
    assert held == architecture.card(figures)
    assert reports[-1] == (8, figures)
    assert all(np.isfinite(list(values.values())).all() for _, values in reports)
    model, tokenizer = load_base(ModelParams(str(tmp_path / "base"), "", "none", "float32"), "cpu")
    assert not any(weight.requires_grad for weight in model.parameters())
    encoder = encoder_for(model.config, tokenizer, SETTINGS.num_frames, 512)
    assert encoder.num_video_tokens == 2 * (2 * 2 + 1)
    assert encoder.prefix("words")[0].count(encoder.video_token_id) == 10
    assert len(encoder.letters()) == 5


def test_pretraining_goes_on_from_another_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate of nearly nothing leaves the weights of the base that was named, up to bfloat16."""
    monkeypatch.setattr(examination, "HELD_OUT_CLIPS", 1)
    monkeypatch.setattr(trainer, "HELD_OUT_CLIPS", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    tokenizer = tokenizer_of()
    torch.manual_seed(9)
    first = architecture.make_model(SMALL, SETTINGS.size, tokenizer)
    architecture.save(first, tokenizer, str(tmp_path / "first"))
    params = dataclasses.replace(
        SMALL, start=str(tmp_path / "first"), out=str(tmp_path / "second"), learning_rate=1e-12, apart_steps=0
    )
    trainer.pretrain(params, SETTINGS, "cpu", lambda step, values: None)
    second, same = load_base(ModelParams(str(tmp_path / "second"), "", "none", "float32"), "cpu")
    assert same.get_vocab() == tokenizer.get_vocab()
    for name, weight in second.named_parameters():
        torch.testing.assert_close(weight, first.get_parameter(name).float(), rtol=0, atol=1e-2)
