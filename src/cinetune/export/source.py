"""What is exported: an adapter with the settings, the base and the licence that belong to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cinetune.artifacts import METRICS, Adapter
from cinetune.data import licences
from cinetune.errors import InputError
from cinetune.files import read_json
from cinetune.model import lookup
from cinetune.params import ModelParams, Params
from cinetune.task import data_card

# What a version holds beside its adapter.
SERVED_WITH, ORIGIN, BASE, EVALUATION = "serving.json", "origin.json", "base", "evaluation"


@dataclass(frozen=True)
class Source:
    """An adapter and all that must come from the same training.

    params: with the settings of that training; base: the folder of its base model; origin: what it was made from, and
    metrics: what metrics.json holds, of a version alone.
    """

    adapter: Adapter
    params: Params
    base: Path
    licence: str
    origin: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] | None = None

    @classmethod
    def open(cls, folder: Path, name: str, params: Params) -> Source:
        """Of an adapter's folder, or of that of a version.

        Raises InputError where there is no adapter, where its base is missing or another one, and where its licence
        was not accepted.
        """
        adapter = Adapter.open(folder, name)
        version = adapter.folder.parent
        if not (version / SERVED_WITH).is_file():
            params = adapter.params(params)
            base = lookup.find_base(params.model, str(Path.cwd()))
            licence = licences.of_data(data_card.name_of(params.data), params.register.accept_licence, adapter.task)
            return cls(adapter, params, base, licence)
        config, origin = read_json(version / SERVED_WITH), read_json(version / ORIGIN)
        params = adapter.params(_served(params, config))
        base = version / BASE if (version / BASE).is_dir() else lookup.find_base(params.model, config["root"])
        if not lookup.has_digest(base, config["base_sha256"]):
            raise InputError(
                f"base model {str(base)!r} is not the one that {name!r} was trained on: set CINETUNE_BASE_MODEL to the "
                "folder of that one."
            )
        metrics = version / EVALUATION / METRICS
        licence = origin.get("licence", data_card.UNKNOWN_LICENCE)
        return cls(adapter, params, base, licence, origin, read_json(metrics) if metrics.is_file() else None)

    def model(self, is_quantised: bool) -> ModelParams:
        """How its base is loaded: as it is served, or with the weights as they were before any quantisation."""
        params = replace(self.params.model, base=str(self.base), revision="")
        return params if is_quantised else replace(params, quantization="none")


def _served(params: Params, config: Mapping[str, Any]) -> Params:
    """The settings that a version is served with, in the place of those of params.yaml."""
    shown = {"max_subtitle_tokens": config["max_subtitle_tokens"], "truncate": config.get("truncate", "end")}
    served = {"questions_per_pack": config["questions_per_pack"], "max_new_tokens": config["max_new_tokens"]}
    for section, values in {
        "model": config["model"], "frames": config["frames"], "prompt": shown, "evaluate": served,
    }.items():  # fmt: skip
        params = params.override(section, values)
    return params
