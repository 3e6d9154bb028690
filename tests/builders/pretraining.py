"""A pretraining of seconds."""

from __future__ import annotations

import dataclasses

from builders.projects import ROOT
from cinetune import params as params_module
from cinetune.frames.sampling import FrameSettings

PARAMS = params_module.load(ROOT / "params.yaml")
SETTINGS = FrameSettings("shots", num_frames=2, size=32, cut_threshold=30.0, min_shot_frames=8)
SMALL = dataclasses.replace(
    PARAMS.pretrain,
    films=2,
    clips_per_film=2,
    drill_steps=2,
    text_steps=2,
    apart_steps=2,
    steps=2,
    clips_per_step=2,
    hidden_size=64,
    intermediate_size=64,
    layers=1,
    heads=2,
    vision_hidden_size=32,
    vision_layers=1,
    patch_size=16,
)
