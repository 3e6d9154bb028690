"""params.yaml is read whole or refused with a sentence; nothing in it is guessed."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

from builders.projects import ROOT
from builders.refusals import sentence
from cinetune import params
from cinetune.errors import InputError

pytestmark = pytest.mark.experience

# Numbers for which nothing is a sensible value.
MAY_BE_ZERO = {
    "download.max_clips", "download.retries", "download.pause_s", "download.backoff_s", "download.cooldown_s",
    "download.max_cooldown_s",
    "train.warmup_fraction", "train.weight_decay", "train.lora_dropout", "train.seed", "evaluate.seed",
    "evaluate.server_rate", "compare.seed", "train.open_questions_per_pack", "train.checkpoint_minutes",
    "register.margin", "register.category_margin",
    "register.max_missing", "serve.trace_share", "trace.evaluated", "prompt.max_subtitle_tokens", "mini.seed",
    "pretrain.drill_steps", "pretrain.text_steps", "pretrain.apart_steps", "pretrain.steps", "pretrain.decay_fraction",
    "pretrain.seed", "train.max_steps", "train.early_stopping_patience", "sweep.seed",
    "predict.start", "predict.end", "serve.cached_prefix_mb", "import.test_fraction", "import.seed",
}  # fmt: skip


SHIPPED = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def content() -> dict[str, dict[str, Any]]:
    return copy.deepcopy(SHIPPED)


def numbers() -> list[tuple[str, str, type]]:
    """Section, key and type of every number of the project."""
    return [
        (section, key, kind)
        for section, holder in params.SECTIONS.items()
        for key, kind in get_type_hints(holder).items()
        if kind in (int, float)
    ]


def changed(section: str, key: str, value: Any) -> dict[str, dict[str, Any]]:
    given = content()
    given[section][key] = value
    return given


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str | bytes, name: str = "given.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_the_shipped_file_is_read_key_by_key() -> None:
    assert params.load(ROOT / "params.yaml").to_dict() == content()


def test_params_are_the_same_after_a_round_trip_through_a_mapping() -> None:
    loaded = params.load(ROOT / "params.yaml")
    assert params.from_dict(loaded.to_dict()) == loaded


def test_params_cannot_be_changed_in_place() -> None:
    loaded = params.load(ROOT / "params.yaml")
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.train.epochs = 5


def test_an_unknown_section_is_refused_with_those_that_there_are() -> None:
    message = sentence(lambda: params.from_dict({**content(), "trian": {}}))
    assert "'trian'" in message and "train" in message


def test_an_unknown_key_is_refused_with_those_that_there_are() -> None:
    message = sentence(lambda: params.from_dict(changed("train", "lr", 1.0)))
    assert "'lr'" in message and "learning_rate" in message


def test_a_key_that_was_renamed_is_refused_with_its_new_name() -> None:
    for section, renamed in params.RENAMED.items():
        for old, new in renamed.items():
            given = content()
            given[section][old] = given[section].pop(new)
            message = sentence(lambda given=given: params.from_dict(given))
            assert f"{section}: parameter {old!r} is not known: it is called {new!r} now." == message


def test_a_missing_section_is_named() -> None:
    given = content()
    del given["frames"]
    assert "'frames'" in sentence(lambda: params.from_dict(given))


def test_a_section_without_keys_is_named() -> None:
    assert "'frames'" in sentence(lambda: params.from_dict({**content(), "frames": None}))


def test_a_missing_key_is_named_with_its_section() -> None:
    given = content()
    del given["train"]["epochs"]
    message = sentence(lambda: params.from_dict(given))
    assert "train" in message and "'epochs'" in message


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, True, None, [], {}, "", "many", 10**400])
def test_no_number_takes_what_is_none(value: Any) -> None:
    """Python's own errors for these differ (ValueError, TypeError, OverflowError): all must become the sentence."""
    for section, key, kind in numbers():
        if value == 10**400 and kind is int:
            continue
        message = sentence(lambda s=section, k=key: params.from_dict(changed(s, k, value)))
        assert f"{section}.{key}" in message and repr(value) in message


def test_no_whole_number_takes_a_fraction() -> None:
    for section, key in ((section, key) for section, key, kind in numbers() if kind is int):
        for value in (2.5, "2.5", "1e3"):
            message = sentence(lambda s=section, k=key, v=value: params.from_dict(changed(s, k, v)))
            assert f"{section}.{key} must be a whole number, got {value!r}" in message


def test_zero_is_refused_except_where_it_means_something() -> None:
    accepted = set()
    for section, key, kind in numbers():
        try:
            params.from_dict(changed(section, key, kind(0)))
        except InputError as error:
            assert f"{section}.{key} must be above 0" in str(error)
        else:
            accepted.add(f"{section}.{key}")
    assert accepted == MAY_BE_ZERO


def test_the_refusal_of_a_negative_value_says_whether_zero_would_do() -> None:
    assert "at least 0" in sentence(lambda: params.from_dict(changed("train", "seed", -1)))
    assert "above 0" in sentence(lambda: params.from_dict(changed("train", "lora_rank", -1)))


@pytest.mark.parametrize("key", ["warmup_fraction", "validation_fraction", "lora_dropout"])
def test_a_fraction_is_below_one(key: str) -> None:
    assert getattr(params.from_dict(changed("train", key, 0.99)).train, key) == 0.99
    assert f"train.{key} must be below 1, got 1.0" in sentence(lambda: params.from_dict(changed("train", key, 1.0)))


def test_a_whole_number_may_be_written_with_a_point() -> None:
    rank = params.from_dict(changed("train", "lora_rank", 8.0)).train.lora_rank
    assert rank == 8 and isinstance(rank, int)


@pytest.mark.parametrize("written", ["1e-4", "1.0e-4", "'1e-4'", "0.0001"])
def test_a_learning_rate_is_the_same_number_however_it_is_written(write: Callable[..., Path], written: str) -> None:
    """PyYAML reads 1e-4, which has no point, as text."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    number = content()["train"]["learning_rate"]
    line = next(line for line in text.splitlines() if line.strip().startswith("learning_rate"))
    path = write(text.replace(line, f"  learning_rate: {written}", 1))
    loaded = params.load(path).train.learning_rate
    assert loaded == 1e-4 != number


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("model", "quantization"),
        ("model", "dtype"),
        ("frames", "policy"),
        ("evaluate", "split"),
        ("evaluate", "ablation"),
        ("report", "reference"),
        ("pretrain", "device"),
    ],
)
def test_a_word_that_is_no_option_is_refused_with_the_options(section: str, key: str) -> None:
    message = sentence(lambda: params.from_dict(changed(section, key, "Nf4")))
    assert f"{section}.{key} must be one of" in message and "'Nf4'" in message
    assert content()[section][key] in message


@pytest.mark.parametrize("value", [3, None, True, ["base-model"]])
def test_text_that_is_no_text_is_refused_with_the_remedy(value: Any) -> None:
    message = sentence(lambda: params.from_dict(changed("model", "base", value)))
    assert f"model.base must be text, got {value!r}" in message and "quotes" in message


@pytest.mark.parametrize("value", [True, "true", "True"])
def test_a_switch_may_be_written_with_or_without_quotes(value: Any) -> None:
    assert params.from_dict(changed("download", "pin", value)).download.pin is True


@pytest.mark.parametrize("value", ["yes", "", 1, None, "1"])
def test_what_is_neither_true_nor_false_is_refused(value: Any) -> None:
    message = sentence(lambda: params.from_dict(changed("download", "pin", value)))
    assert message == f"download.pin must be true or false, got {value!r}."


def test_a_word_that_yaml_reads_as_a_switch_is_refused_with_the_remedy() -> None:
    message = sentence(lambda: params.from_dict(changed("train", "compile", True)))
    assert message == "train.compile must be one of auto, true, false, got True: put it in quotes."


@pytest.mark.parametrize("name", ["missing.yaml", ""])
def test_a_file_that_is_not_there_is_named_with_the_remedy(tmp_path: Path, name: str) -> None:
    message = sentence(lambda: params.load(tmp_path / name))
    assert str(tmp_path / name) in message and "-P params=" in message


@pytest.mark.parametrize(
    "text",
    ["train: [", "a: b: c", b"\xff\xfe\x00train", "train:\n\tepochs: 1", "made: 2026-13-45", "- train", "3", ""],
)
def test_a_file_that_is_no_params_file_is_named(write: Callable[..., Path], text: str | bytes) -> None:
    """`2026-13-45` is a date that no calendar has, for which YAML's reader raises an error of another kind."""
    path = write(text)
    assert str(path) in sentence(lambda: params.load(path))


def test_a_wrong_section_is_refused_in_the_name_of_its_file(write: Callable[..., Path]) -> None:
    path = write(yaml.safe_dump({**content(), "trian": {}}))
    assert str(path) in sentence(lambda: params.load(path))


def test_a_partial_file_changes_what_it_names_and_nothing_else(write: Callable[..., Path]) -> None:
    path = write("train:\n  epochs: 9\nmodel:\n  dtype: bfloat16\n")
    expected = content()
    expected["train"]["epochs"] = 9
    expected["model"]["dtype"] = "bfloat16"
    assert params.load_over(path, ROOT / "params.yaml").to_dict() == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("trian:\n  epochs: 9\n", "'trian'"),
        ("train:\n  epoch: 9\n", "'epoch'"),
        ("train: 9\n", "'train'"),
        ("train:\n", "'train'"),
        ("train:\n  epochs: nine\n", "'nine'"),
    ],
)
def test_a_partial_file_with_a_wrong_entry_is_refused(write: Callable[..., Path], text: str, named: str) -> None:
    path = write(text)
    assert named in sentence(lambda: params.load_over(path, ROOT / "params.yaml"))


# The other program's own configuration, not ours.
RECIPES = sorted(set((ROOT / "recipes").glob("*.yaml")) - {ROOT / "recipes/video2dataset.yaml"})


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_lies_over_the_shipped_file(recipe: Path) -> None:
    loaded = params.load_over(recipe, ROOT / "params.yaml")
    assert loaded != params.load(ROOT / "params.yaml")


def test_a_command_lines_text_is_read_as_the_type_of_its_key() -> None:
    loaded = params.load(ROOT / "params.yaml")
    given = {"epochs": "2", "learning_rate": "1e-4", "lora_rank": "16", "lora_dropout": ".5"}
    train = loaded.override("train", given).train
    assert (train.epochs, train.learning_rate, train.lora_rank, train.lora_dropout) == (2.0, 1e-4, 16, 0.5)
    assert dataclasses.replace(train, **{name: getattr(loaded.train, name) for name in given}) == loaded.train


def test_an_override_leaves_the_original_and_the_other_sections_alone() -> None:
    loaded = params.load(ROOT / "params.yaml")
    other = loaded.override("train", {"epochs": "9"})
    assert loaded.to_dict() == content()
    assert {**other.to_dict(), "train": None} == {**content(), "train": None}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"epoch": "2"}, "'epoch'"),
        ({"lora_rank": "8.5"}, "train.lora_rank"),
        ({"lora_rank": ""}, "train.lora_rank"),
        ({"learning_rate": "fast"}, "train.learning_rate"),
    ],
)
def test_a_wrong_override_is_named(values: dict[str, str], named: str) -> None:
    assert named in sentence(lambda: params.load(ROOT / "params.yaml").override("train", values))


def test_a_file_that_is_not_there_is_told_with_the_folder_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = sentence(lambda: params.load("mine.yaml"))
    assert repr("mine.yaml") in told and repr(str(tmp_path)) in told and "by its whole path" in told
