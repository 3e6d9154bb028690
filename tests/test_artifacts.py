"""The adapter and the evaluation folder: what is in them, and which evaluation speaks for which adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from builders.projects import ROOT
from builders.refusals import sentence
from cinetune import artifacts
from cinetune import params as params_module
from cinetune.artifacts import Adapter, Evaluation
from cinetune.frames.sampling import FrameSettings
from cinetune.task import description, prompts
from cinetune.task.description import CINEPILE, Task
from cinetune.training import session

pytestmark = pytest.mark.evaluation

PARAMS = params_module.load(ROOT / "params.yaml")
SUMMARY: dict[str, Any] = {"ablation": None, "scorers": {}}
BASE = {"base": "digest of the base", "tokenizer": "digest of the tokenizer"}


@pytest.fixture
def adapter(tmp_path: Path) -> Adapter:
    with artifacts.writing_adapter(tmp_path / "adapter", session.settings_of(PARAMS), {"steps": 3}, CINEPILE) as folder:
        (folder / "adapter_config.json").write_text("{}")
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return Adapter.open(tmp_path / "adapter")


def evaluated(adapter: Adapter, folder: Path, params: params_module.Params = PARAMS, **summary: Any) -> Evaluation:
    made_from = {
        "adapter_digest": adapter.digest,
        **artifacts.seen_by(params, BASE, CINEPILE),
        "params": params.sections("data", "model", "prompt", "frames"),
    }
    Evaluation("", pd.DataFrame({"question_id": ["q"]}), SUMMARY | summary, made_from).write(folder)
    return Evaluation.open(folder)


def test_an_adapter_carries_the_settings_and_the_prompt_that_it_was_trained_with(adapter: Adapter) -> None:
    assert {path.name for path in adapter.folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "params.json", "prompt.json", "training.json",
    }  # fmt: skip
    others = PARAMS.override("prompt", {"max_subtitle_tokens": 7}).override("evaluate", {"seed": 9})
    own = adapter.params(others)
    assert own.prompt == PARAMS.prompt and own.evaluate.seed == 9


def test_an_adapter_is_found_below_a_folder_as_in_a_registered_model(adapter: Adapter) -> None:
    assert Adapter.open(adapter.folder.parent).folder == adapter.folder


@pytest.mark.parametrize("lost", ["adapter_config.json", "adapter_model.safetensors"])
def test_half_an_adapter_is_none(adapter: Adapter, lost: str) -> None:
    (adapter.folder / lost).unlink()
    assert lost in sentence(lambda: Adapter.open(adapter.folder))


def test_an_adapter_of_another_prompt_keeps_its_own_words(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prompts.template()
    monkeypatch.setattr(prompts, "ASKING", "USER: Look.")
    own = Adapter.open(adapter.folder)
    assert prompts.template(own.task) == before != prompts.template()
    assert own.task.model_copy(update={"prompt": None}) == CINEPILE
    assert "another prompt" in sentence(lambda: own.check_settings(PARAMS, CINEPILE))
    own.check_settings(PARAMS, own.task)


@pytest.mark.parametrize("content", ["{", '["a"]', "{}", '{"prefix": "p", "suffix": "s", "open_suffix": 3}'])
def test_an_adapter_with_half_a_prompt_is_refused(adapter: Adapter, content: str) -> None:
    (adapter.folder / "prompt.json").write_text(content)
    assert "prompt.json" in sentence(lambda: Adapter.open(adapter.folder))


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("prompt", "max_subtitle_tokens", 1),
        ("prompt", "truncate", "middle"),
        ("model", "base", "elsewhere/base"),
        ("model", "quantization", "nf4"),
        ("model", "dtype", "bfloat16"),
        ("frames", "num_frames", 4),
        ("frames", "policy", "uniform"),
    ],
)
def test_other_settings_than_those_of_its_training_are_told_and_refused(
    adapter: Adapter, tmp_path: Path, section: str, name: str, value: Any
) -> None:
    other = PARAMS.override(section, {name: value})
    told = sentence(lambda: adapter.check_settings(other, CINEPILE))
    assert f"{section}.{name}" in told and repr(value) in told and "-P allow=settings" in told
    recorded = evaluated(adapter, tmp_path / "evaluation", other)
    said = sentence(lambda: recorded.check_of(adapter, PARAMS, artifacts.seen_by(PARAMS, BASE, CINEPILE)))
    assert f"was made with {section}.{name}={value!r}" in said


@pytest.mark.parametrize(
    ("section", "values"),
    [("frames", {"workers": 7}), ("train", {"epochs": 9}), ("data", {"name": "Other"}), ("evaluate", {"seed": 1})],
)
def test_settings_that_change_nothing_that_it_is_shown_do_not_matter(
    adapter: Adapter, tmp_path: Path, section: str, values: dict[str, Any]
) -> None:
    other = PARAMS.override(section, values)
    adapter.check_settings(other, CINEPILE)
    recorded = evaluated(adapter, tmp_path / "evaluation", other)
    recorded.check_of(adapter, PARAMS, artifacts.seen_by(PARAMS, BASE, CINEPILE))


def test_every_setting_of_frames_that_decides_their_pixels_counts() -> None:
    assert set(FrameSettings.of(PARAMS.frames).to_dict()) == artifacts.FRAME_KEYS


def test_an_adapter_made_elsewhere_has_no_settings_to_contradict(adapter: Adapter) -> None:
    for name in ("params.json", "prompt.json", "training.json"):
        (adapter.folder / name).unlink()
    bare = Adapter.open(adapter.folder)
    bare.check_settings(PARAMS.override("prompt", {"max_subtitle_tokens": 1}), CINEPILE)
    assert bare.params(PARAMS) == PARAMS


def test_an_evaluation_is_opened_whole_or_refused(adapter: Adapter, tmp_path: Path) -> None:
    folder = tmp_path / "evaluations" / "one"
    assert "holds no evaluation" in sentence(lambda: Evaluation.open(tmp_path / "evaluations"))
    found = evaluated(adapter, folder)
    assert list(found.predictions["question_id"]) == ["q"] and found.summary == SUMMARY
    assert Evaluation.open(folder.parent).summary == SUMMARY
    evaluated(adapter, folder.parent / "two")
    assert "holds 2 evaluations" in sentence(lambda: Evaluation.open(folder.parent))
    (folder / "predictions.parquet").unlink()
    assert "no predictions.parquet" in sentence(lambda: Evaluation.open(folder))


def test_an_evaluation_of_something_else_does_not_speak_for_an_adapter(adapter: Adapter, tmp_path: Path) -> None:
    with_ablation = evaluated(adapter, tmp_path / "ablation", ablation="no_frames")
    assert "has the ablation 'no_frames'" in sentence(lambda: with_ablation.check_of(adapter, PARAMS, {}))
    of_this = evaluated(adapter, tmp_path / "evaluation")
    (adapter.folder / "training.json").write_text(json.dumps({"steps": 4}))
    assert "of another adapter" in sentence(lambda: of_this.check_of(Adapter.open(adapter.folder), PARAMS, {}))


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("model", {"base": "elsewhere/base"}),
        ("model", {"quantization": "nf4"}),
        ("prompt", {"max_subtitle_tokens": 8}),
        ("frames", {"num_frames": 4}),
    ],
)
def test_an_adapter_made_elsewhere_is_judged_as_it_will_be_served(
    adapter: Adapter, tmp_path: Path, section: str, values: dict[str, Any]
) -> None:
    """It has no settings of its own: what it is evaluated with and what it is served with must be the same."""
    for name in ("params.json", "prompt.json", "training.json"):
        (adapter.folder / name).unlink()
    bare = Adapter.open(adapter.folder)
    recorded = evaluated(bare, tmp_path / "evaluation", PARAMS.override(section, values))
    said = sentence(lambda: recorded.check_of(bare, PARAMS, {}))
    [(name, value)] = values.items()
    assert f"was made with {section}.{name}={value!r}" in said and "the params file" in said


@pytest.mark.parametrize("name", artifacts.MEASURED)
def test_an_evaluation_of_another_base_prompt_or_choice_of_frames_does_not_speak_for_a_version(
    adapter: Adapter, tmp_path: Path, name: str
) -> None:
    recorded = evaluated(adapter, tmp_path / "evaluation")
    measured = artifacts.seen_by(PARAMS, BASE, CINEPILE)
    recorded.check_of(adapter, PARAMS, measured)
    said = sentence(lambda: recorded.check_of(adapter, PARAMS, measured | {name: "another"}))
    assert f"was made with another {artifacts.MEASURED[name]}" in said


def test_an_adapter_keeps_its_task_and_is_asked_no_questions_of_another_prompt(tmp_path: Path) -> None:
    own = Task(group="camera", max_choices=4, subtitles=False)
    for name, task in (("own", own), ("cinepile", CINEPILE)):
        with artifacts.writing_adapter(tmp_path / name, session.settings_of(PARAMS), {"steps": 3}, task) as folder:
            for file in (artifacts.CONFIG, artifacts.WEIGHTS):
                (folder / file).write_text("{}")
    adapter = Adapter.open(tmp_path / "own")
    assert adapter.task == own and Adapter.open(tmp_path / "cinepile").task == CINEPILE
    # Adapters of CinePile's are as they were before there were other tasks.
    assert not (tmp_path / "cinepile" / description.FILE).exists()
    adapter.check_settings(PARAMS, own)
    assert "another prompt" in sentence(lambda: adapter.check_settings(PARAMS, CINEPILE))
    assert "another prompt" in sentence(lambda: Adapter.open(tmp_path / "cinepile").check_settings(PARAMS, own))
