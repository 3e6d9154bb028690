"""params.yaml as frozen dataclasses: every number has one home, unknown keys are refused.

The dataclasses carry no defaults: params.yaml does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from cinetune.errors import InputError


@dataclass(frozen=True)
class DataParams:
    name: str
    root: str


@dataclass(frozen=True)
class ModelParams:
    base: str
    revision: str
    quantization: str
    dtype: str


@dataclass(frozen=True)
class PromptParams:
    max_subtitle_tokens: int
    truncate: str


@dataclass(frozen=True)
class DownloadParams:
    questions: str
    revision: str
    data_dir: str
    videos: str
    max_clips: int
    workers: int
    retries: int
    pause_s: float
    backoff_s: float
    stall_s: float
    timeout_s: float
    max_megabytes: int
    max_duration_s: float
    stop_after: int
    again: str
    cookies: str
    pin: str


@dataclass(frozen=True)
class FramesParams:
    policy: str
    seek: str
    num_frames: int
    size: int
    cut_threshold: float
    min_shot_frames: int
    shard_clips: int
    workers: int
    timeout_s: float
    max_megapixels: float
    max_duration_s: float
    memory_mb: int
    engine: str
    shard: str
    out: str


@dataclass(frozen=True)
class TrainParams:
    epochs: float
    max_steps: int
    learning_rate: float
    warmup_fraction: float
    weight_decay: float
    max_grad_norm: float
    clips_per_step: int
    questions_per_pack: int
    tokens_per_pack: int
    open_questions_per_pack: int
    validation_fraction: float
    validations_per_epoch: int
    early_stopping_patience: int
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    seed: int
    processes: int
    resume: bool
    dry_run: bool
    compile: str
    activation_checkpointing: str


@dataclass(frozen=True)
class EvaluateParams:
    model: str
    split: str
    ablation: str
    ablations: str
    questions_per_pack: int
    max_new_tokens: int
    resample: str
    bootstrap_samples: int
    seed: int


@dataclass(frozen=True)
class CompareParams:
    runs: str
    scorer: str
    allow: str
    resample: str
    bootstrap_samples: int
    seed: int


@dataclass(frozen=True)
class StudyParams:
    seeds: str
    films: str


@dataclass(frozen=True)
class SweepParams:
    trials: int
    study: str
    learning_rate: str
    lora_rank: str
    alpha_per_rank: str
    clips_per_step: str
    lora_dropout: str
    epochs: float
    validations_per_epoch: int
    startup_trials: int
    seed: int


@dataclass(frozen=True)
class ReportParams:
    reference: str


@dataclass(frozen=True)
class RegisterParams:
    name: str
    adapter: str
    evaluation: str
    margin: float
    accept_licence: str
    embed_base: bool
    force: bool
    rollback: bool


@dataclass(frozen=True)
class PredictParams:
    model: str
    video: str
    question: str
    choices: str
    subtitles: str
    start: float
    end: float


@dataclass(frozen=True)
class ServeParams:
    timeout_s: float
    most_waiting: int
    most_body_mb: int
    cached_clips: int
    cached_prefix_mb: int
    decoders: int
    decode_timeout_s: float
    url_hosts: str


@dataclass(frozen=True)
class MiniParams:
    train_films: int
    test_films: int
    clips_per_film: int
    seed: int


@dataclass(frozen=True)
class PretrainParams:
    out: str
    start: str
    device: str
    films: int
    clips_per_film: int
    drill_steps: int
    text_steps: int
    apart_steps: int
    steps: int
    clips_per_step: int
    learning_rate: float
    decay_fraction: float
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    vision_hidden_size: int
    vision_layers: int
    patch_size: int
    vocab_size: int
    seed: int


@dataclass(frozen=True)
class Params:
    data: DataParams
    model: ModelParams
    prompt: PromptParams
    download: DownloadParams
    frames: FramesParams
    train: TrainParams
    evaluate: EvaluateParams
    compare: CompareParams
    study: StudyParams
    sweep: SweepParams
    report: ReportParams
    register: RegisterParams
    predict: PredictParams
    serve: ServeParams
    mini: MiniParams
    pretrain: PretrainParams

    def to_dict(self) -> dict[str, dict[str, Any]]:
        return dataclasses.asdict(self)

    def override(self, section: str, values: Mapping[str, Any]) -> Params:
        """A copy with some values of one section replaced; text is read as the type of the key."""
        current = getattr(self, section)
        merged = dataclasses.asdict(current) | dict(values)
        return dataclasses.replace(self, **{section: build(type(current), merged, section)})


CHOICES = {
    "model.quantization": ("none", "nf4", "fp8"),
    "model.dtype": ("float32", "bfloat16", "float16"),
    "download.pin": ("true", "false"),
    "prompt.truncate": ("middle", "end"),
    "train.compile": ("auto", "true", "false"),
    "frames.policy": ("shots", "uniform"),
    "frames.seek": ("exact", "keyframe"),
    "frames.engine": ("local", "ray"),
    "evaluate.split": ("train", "test"),
    "evaluate.ablation": (
        "none", "no_frames", "no_subtitles", "neither", "one_frame", "shuffled",
        "rotation_1", "rotation_2", "rotation_3", "rotation_4",
    ),
    "evaluate.resample": ("clips", "films"),
    "compare.scorer": ("strict", "lenient", "logit"),
    "compare.resample": ("clips", "films"),
    "report.reference": ("v1", "v2", "none"),
    "pretrain.device": ("auto", "cpu", "cuda"),
}  # fmt: skip
MAY_BE_ZERO = {
    "train.warmup_fraction", "train.weight_decay", "train.lora_dropout", "register.margin",
    "prompt.max_subtitle_tokens", "pretrain.drill_steps", "pretrain.text_steps", "pretrain.apart_steps",
    "pretrain.steps", "pretrain.decay_fraction", "train.open_questions_per_pack", "train.max_steps",
    "train.early_stopping_patience", "predict.start", "predict.end", "serve.cached_prefix_mb",
    "download.max_clips", "download.retries", "download.pause_s", "download.backoff_s",
}  # fmt: skip
BELOW_ONE = {
    "train.warmup_fraction", "train.validation_fraction", "train.lora_dropout", "pretrain.decay_fraction",
}  # fmt: skip


def load(path: str | Path = "params.yaml") -> Params:
    """Read a whole params file. Raises InputError for a missing file, a wrong key or a wrong type."""
    return from_dict(read_yaml(path), str(path))


def load_over(path: str | Path, whole: str | Path = "params.yaml") -> Params:
    """The values of `whole`, with those that the file `path` holds in their place: it need not hold all."""
    given = read_yaml(path)
    content = read_yaml(whole)
    _refuse_unknown(given, content, f"{path}: section")
    for name, values in given.items():
        if not isinstance(values, Mapping):
            raise InputError(f"{path}: section {name!r} holds no parameters: compare it with params.yaml.")
        if isinstance(content[name], Mapping):
            content[name] = {**content[name], **values}
    return from_dict(content, str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"params file {str(path)!r} does not exist: run from the project's root or pass -P params=<file>."
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    # A date that no calendar has is a plain ValueError, and so is text that is not UTF-8.
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"params file {str(path)!r} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise InputError(f"params file {str(path)!r} holds no sections: compare it with params.yaml.")
    return content


def from_dict(content: Mapping[str, Any], origin: str = "params") -> Params:
    """Params from nested mappings, as `Params.to_dict` makes them."""
    sections = {field.name: field for field in dataclasses.fields(Params)}
    hints = get_type_hints(Params)
    _refuse_unknown(content, sections, f"{origin}: section")
    for name in sections:
        if not isinstance(content.get(name), Mapping):
            raise InputError(f"{origin}: section {name!r} is missing: compare it with params.yaml.")
    return Params(**{name: build(hints[name], content[name], name) for name in sections})


def build(kind: type, values: Mapping[str, Any], section: str) -> Any:
    """One section's dataclass from a mapping, each value checked against its type and range."""
    hints = get_type_hints(kind)
    _refuse_unknown(values, hints, f"{section}: parameter")
    missing = [name for name in hints if name not in values]
    if missing:
        raise InputError(f"{section}: parameter {missing[0]!r} is missing: give it a value in params.yaml.")
    return kind(**{name: read_value(f"{section}.{name}", values[name], hints[name]) for name in hints})


def read_value(name: str, value: Any, kind: type) -> Any:
    """`value` as `kind` (int, float, bool or str), from YAML or from a command line's text."""
    if kind is bool:
        return _read_switch(name, value)
    if kind is str:
        if not isinstance(value, str):
            raise InputError(f"{name} must be text, got {value!r}: put it in quotes.")
        if name in CHOICES and value not in CHOICES[name]:
            raise InputError(f"{name} must be one of {', '.join(CHOICES[name])}, got {value!r}.")
        return value
    try:
        if isinstance(value, bool):
            raise ValueError
        number = kind(value) if isinstance(value, str) or kind is float else _as_int(value)
    except (TypeError, ValueError, OverflowError):
        wanted = "a whole number" if kind is int else "a number"
        raise InputError(f"{name} must be {wanted}, got {value!r}.") from None
    may_be_zero = name in MAY_BE_ZERO or name.endswith(".seed")
    if not abs(number) < float("inf") or number < 0 or (number == 0 and not may_be_zero):
        raise InputError(f"{name} must be {'at least 0' if may_be_zero else 'above 0'} and finite, got {value!r}.")
    if name in BELOW_ONE and number >= 1:
        raise InputError(f"{name} must be below 1, got {value!r}: it is a fraction.")
    return number


def _read_switch(name: str, value: Any) -> bool:
    # MLflow passes a default of `false` on as Python writes it.
    word = str(value).lower()
    if word not in ("true", "false"):
        raise InputError(f"{name} must be true or false, got {value!r}.")
    return word == "true"


def _as_int(value: Any) -> int:
    if value != int(value):
        raise ValueError
    return int(value)


def _refuse_unknown(given: Mapping[str, Any], known: Mapping[str, Any], what: str) -> None:
    unknown = sorted(str(name) for name in given if name not in known)
    if unknown:
        raise InputError(f"{what} {unknown[0]!r} is not known: choose from {', '.join(known)}.")
