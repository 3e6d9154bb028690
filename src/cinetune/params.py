"""params.yaml as frozen dataclasses: every number has one home, unknown keys and wrong values are refused.

The dataclasses carry types and limits and no defaults: params.yaml does.
"""

from __future__ import annotations

import dataclasses
import keyword
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from cinetune.errors import InputError

T = TypeVar("T")

PARAMS = "params.yaml"
STRICT = ConfigDict(extra="forbid")
# What a section calls a key now, by what it was called before.
RENAMED = {"serve": {"most_waiting": "max_waiting", "most_body_mb": "max_body_mb"}}


def _refuse_switch(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a switch is not a number")
    return value


def _read_switch(value: Any) -> bool:
    # Command lines and MLflow pass text, as Python writes it or as YAML does.
    word = str(value).lower()
    if word not in ("true", "false"):
        raise ValueError("neither true nor false")
    return word == "true"


NOT_A_SWITCH = BeforeValidator(_refuse_switch)
FINITE = Field(allow_inf_nan=False)
Switch = Annotated[bool, BeforeValidator(_read_switch)]
Count = Annotated[int, NOT_A_SWITCH, Field(gt=0)]
CountOrZero = Annotated[int, NOT_A_SWITCH, Field(ge=0)]
Amount = Annotated[float, NOT_A_SWITCH, FINITE, Field(gt=0)]
AmountOrZero = Annotated[float, NOT_A_SWITCH, FINITE, Field(ge=0)]
Fraction = Annotated[float, NOT_A_SWITCH, FINITE, Field(gt=0, lt=1)]
Share = Annotated[float, NOT_A_SWITCH, FINITE, Field(ge=0, le=1)]
FractionOrZero = Annotated[float, NOT_A_SWITCH, FINITE, Field(ge=0, lt=1)]
Ablation = Literal[
    "none", "no_frames", "no_subtitles", "neither", "one_frame", "shuffled",
    "rotation_1", "rotation_2", "rotation_3", "rotation_4", "rotation_5", "rotation_6", "rotation_7", "rotation_8",
    "rotation_9",
]  # fmt: skip


@dataclass(frozen=True, config=STRICT)
class DataParams:
    # Empty for what the folder says of itself: task.data_card.name_of tells.
    name: str
    root: str


@dataclass(frozen=True, config=STRICT)
class ModelParams:
    base: str
    revision: str
    quantization: Literal["none", "nf4", "fp8"]
    dtype: Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, config=STRICT)
class PromptParams:
    max_subtitle_tokens: CountOrZero
    truncate: Literal["middle", "end"]


@dataclass(frozen=True, config=STRICT)
class TraceParams:
    evaluated: CountOrZero
    content: Literal["auto", "always", "never"]


@dataclass(frozen=True, config=STRICT)
class DownloadParams:
    questions: str
    revision: str
    data_dir: str
    videos: str
    max_clips: CountOrZero
    workers: Count
    retries: CountOrZero
    pause_s: AmountOrZero
    backoff_s: AmountOrZero
    cooldown_s: AmountOrZero
    max_cooldown_s: AmountOrZero
    stall_s: Amount
    timeout_s: Amount
    max_megabytes: Count
    max_duration_s: Amount
    stop_after: Count
    again: str
    replace: Switch
    cookies: str
    pin: Switch


@dataclass(frozen=True, config=STRICT)
class ImportParams:
    questions: str
    traces: str
    videos: str
    out: str
    layout: Literal["plain", "nextqa", "egoschema", "mvbench", "video_mme", "tvqa"]
    test_fraction: FractionOrZero
    seed: CountOrZero
    name: str
    group: str
    licence: str


@dataclass(frozen=True, config=STRICT)
class FramesParams:
    policy: Literal["shots", "uniform"]
    seek: Literal["exact", "keyframe"]
    num_frames: Count
    size: Count
    cut_threshold: Amount
    min_shot_frames: Count
    shard_clips: Count
    workers: Count
    timeout_s: Amount
    max_megapixels: Amount
    max_duration_s: Amount
    memory_mb: Count
    engine: Literal["local", "ray"]
    shard: str
    out: str
    # Not among what a registered version keeps from before they were added.
    dry_run: Switch = False
    source: Literal["videos", "images"] = "videos"
    images_per_s: Amount = 1.0


@dataclass(frozen=True, config=STRICT)
class TrainParams:
    epochs: Amount
    max_steps: CountOrZero
    learning_rate: Amount
    warmup_fraction: FractionOrZero
    weight_decay: AmountOrZero
    max_grad_norm: Amount
    clips_per_step: Count
    questions_per_pack: Count
    tokens_per_pack: Count
    shuffle_choices: Switch
    open_questions_per_pack: CountOrZero
    validation_fraction: Fraction
    validations_per_epoch: Count
    early_stopping_patience: CountOrZero
    lora_rank: Count
    lora_alpha: Count
    lora_dropout: FractionOrZero
    seed: CountOrZero
    processes: Count
    resume: Switch
    checkpoint_minutes: AmountOrZero
    checkpoints: str
    dry_run: Switch
    compile: Literal["auto", "true", "false"]
    activation_checkpointing: str


@dataclass(frozen=True, config=STRICT)
class EvaluateParams:
    model: str
    split: Literal["train", "validation", "test"]
    ablation: Ablation
    ablations: str
    prompt: str
    allow: str
    questions_per_pack: Count
    max_new_tokens: Count
    resample: Literal["clips", "groups", "films"]
    bootstrap_samples: Count
    seed: CountOrZero
    server_sends: Literal["frames", "video"]
    server_requests: Count
    server_rate: AmountOrZero
    server_timeout_s: Amount
    server_attempts: Count
    server_body: str
    server_prices: str


@dataclass(frozen=True, config=STRICT)
class CompareParams:
    runs: str
    scorer: Literal["strict", "lenient", "logit"]
    allow: str
    resample: Literal["clips", "groups", "films"]
    bootstrap_samples: Count
    seed: CountOrZero


@dataclass(frozen=True, config=STRICT)
class StudyParams:
    seeds: str
    films: str


@dataclass(frozen=True, config=STRICT)
class SweepParams:
    trials: Count
    study: str
    learning_rate: str
    lora_rank: str
    alpha_per_rank: str
    clips_per_step: str
    lora_dropout: str
    epochs: Amount
    validations_per_epoch: Count
    startup_trials: Count
    seed: CountOrZero


@dataclass(frozen=True, config=STRICT)
class ReportParams:
    reference: Literal["v1", "v2", "none"]


@dataclass(frozen=True, config=STRICT)
class RegisterParams:
    name: str
    adapter: str
    evaluation: str
    margin: AmountOrZero
    category_margin: AmountOrZero
    min_clips: Count
    min_shared: Fraction
    max_missing: FractionOrZero
    accept_licence: str
    embed_base: Switch
    force: Switch
    rollback: Switch
    version: str


@dataclass(frozen=True, config=STRICT)
class ExportParams:
    model: str
    to: Literal["llava", "merged", "adapter"]
    out: str
    questions: Count
    shard_mb: Count
    push: str


@dataclass(frozen=True, config=STRICT)
class PredictParams:
    model: str
    video: str
    question: str
    choices: str
    subtitles: str
    start: AmountOrZero
    end: AmountOrZero
    table: str
    videos: str
    out: str


@dataclass(frozen=True, config=STRICT)
class ServeParams:
    timeout_s: Amount
    max_waiting: Count
    max_body_mb: Count
    cached_clips: Count
    cached_prefix_mb: CountOrZero
    decoders: Count
    decode_timeout_s: Amount
    url_hosts: str
    # Not among what a registered version keeps from before it was added.
    trace_share: Share = 0.0


@dataclass(frozen=True, config=STRICT)
class MiniParams:
    train_films: Count
    test_films: Count
    clips_per_film: Count
    seed: CountOrZero
    # Not in params files from before there was a choice.
    task: Literal["films", "cameras"] = "films"


@dataclass(frozen=True, config=STRICT)
class PretrainParams:
    out: str
    start: str
    device: Literal["auto", "cpu", "cuda"]
    films: Count
    clips_per_film: Count
    drill_steps: CountOrZero
    text_steps: CountOrZero
    apart_steps: CountOrZero
    steps: CountOrZero
    clips_per_step: Count
    learning_rate: Amount
    decay_fraction: FractionOrZero
    hidden_size: Count
    intermediate_size: Count
    layers: Count
    heads: Count
    vision_hidden_size: Count
    vision_layers: Count
    patch_size: Count
    vocab_size: Count
    seed: CountOrZero


@dataclass(frozen=True, config=STRICT)
class Params:
    data: DataParams
    model: ModelParams
    prompt: PromptParams
    trace: TraceParams
    download: DownloadParams
    import_: ImportParams
    frames: FramesParams
    train: TrainParams
    evaluate: EvaluateParams
    compare: CompareParams
    study: StudyParams
    sweep: SweepParams
    report: ReportParams
    register: RegisterParams
    export: ExportParams
    predict: PredictParams
    serve: ServeParams
    mini: MiniParams
    pretrain: PretrainParams

    def to_dict(self) -> dict[str, dict[str, Any]]:
        return self.sections(*SECTIONS)

    def sections(self, *names: str) -> dict[str, dict[str, Any]]:
        """Some sections as plain data, to be logged or saved beside what they made."""
        return {name: dataclasses.asdict(getattr(self, _field(name))) for name in names}

    def override(self, section: str, values: Mapping[str, Any]) -> Params:
        """A copy with some values of one section replaced; text is read as the type of the key."""
        current = getattr(self, _field(section))
        merged = dataclasses.asdict(current) | dict(values)
        return dataclasses.replace(self, **{_field(section): build(type(current), merged, section)})


def _field(section: str) -> str:
    """A section's attribute: Python's own words may be none."""
    return f"{section}_" if keyword.iskeyword(section) else section


SECTIONS: dict[str, Any] = {name.rstrip("_"): kind for name, kind in get_type_hints(Params).items()}
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
LIMITS = {
    "greater_than": "above 0", "greater_than_equal": "at least 0", "less_than": "below 1",
    "less_than_equal": "at most 1", "finite_number": "finite",
}  # fmt: skip
# What makes a version; the rest, and these keys, only say how something was asked for, once.
MAKING = ("data", "model", "prompt", "frames", "train", "evaluate", "report", "serve")
ASKING = {
    "frames": ("engine", "shard", "out", "dry_run"),
    "train": ("resume", "checkpoint_minutes", "checkpoints", "dry_run"),
    "evaluate": ("model", "ablation", "ablations", "prompt", "allow"),
}
UNKNOWN = ("unexpected_keyword_argument", "invalid_key")


def load(path: str | Path = PARAMS) -> Params:
    """Read a whole params file. Raises InputError for a missing file, a wrong key or a wrong value."""
    return from_dict(read_yaml(path), str(path))


def load_over(path: str | Path, whole: str | Path = PARAMS) -> Params:
    """The values of `whole`, with those that the file `path` holds in their place: it need not hold all."""
    content = read_yaml(whole)
    for name, values in read_yaml(path).items():
        known = content.get(name)
        content[name] = {**known, **values} if isinstance(known, Mapping) and isinstance(values, Mapping) else values
    return from_dict(content, str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    path = Path(path)
    if not path.is_file():
        # Of a project that runs by its git address this folder is a copy elsewhere.
        raise InputError(
            f"params file {str(path)!r} does not exist in {str(Path.cwd())!r}: run from the project's root, and name a "
            "file of another folder by its whole path, as in -P params=<file>."
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    # A date that no calendar has is a plain ValueError, and so is text that is not UTF-8.
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"params file {str(path)!r} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise InputError(f"params file {str(path)!r} holds no sections: compare it with params.yaml.")
    return content


def making(content: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of a whole file's values those that make a version, for `load_over` to make it again."""
    return {
        name: {key: value for key, value in content[name].items() if key not in ASKING.get(name, ())}
        for name in MAKING
        if name in content
    }


def from_dict(content: Mapping[str, Any], origin: str = "params") -> Params:
    """Params from nested mappings, as `Params.to_dict` makes them."""
    return _validate(Params, {_field(str(name)): values for name, values in content.items()}, origin)


def build(kind: type[T], values: Mapping[str, Any], section: str) -> T:
    """One section from a mapping, each value checked against its type and limits."""
    return _validate(kind, values, section, (section,))


def read_value(section: str, key: str, value: Any) -> Any:
    """One value as its section takes it, from YAML or from a command line's text."""
    return _validate(get_type_hints(SECTIONS[section], include_extras=True)[key], value, section, (section, key))


def wanted(kind: Any) -> str:
    """What a value of this type must be, in words."""
    return KINDS.get(kind) or f"one of {', '.join(get_args(kind))}"


def _validate(kind: Any, values: Any, origin: str, path: tuple[str, ...] = ()) -> Any:
    """`path`: section and key that the values belong to, where they are not a whole file's."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        # An unknown key says more than one that is missing in its place.
        first = min(error.errors(include_url=False), key=lambda found: found["type"] not in UNKNOWN)
    section, *keys = (*path, *map(str, first["loc"]))
    section = section if section in SECTIONS else section.removesuffix("_")
    told = _told_of_key(section, keys[0], first) if keys else _told_of_section(section, first["type"])
    raise InputError(told if keys else f"{origin}: {told}")


def _told_of_section(section: str, problem: str) -> str:
    if problem in UNKNOWN:
        return f"section {section!r} is not known: choose from {', '.join(SECTIONS)}."
    wrong = "is missing" if problem == "missing" else "holds no parameters"
    return f"section {section!r} {wrong}: compare it with {PARAMS}."


def _told_of_key(section: str, key: str, error: ErrorDetails) -> str:
    kinds = get_type_hints(SECTIONS[section])
    problem, value = error["type"], error["input"]
    if problem in UNKNOWN:
        new = RENAMED.get(section, {}).get(key)
        remedy = f"it is called {new!r} now" if new else f"choose from {', '.join(kinds)}"
        return f"{section}: parameter {key!r} is not known: {remedy}."
    if problem == "missing":
        return f"{section}: parameter {key!r} is missing: give it a value in {PARAMS}."
    kind = kinds[key]
    is_unquoted = kind not in (int, float, bool) and not isinstance(value, str)
    remedy = ": it is a fraction" if problem.startswith("less_than") else ": put it in quotes" if is_unquoted else ""
    return f"{section}.{key} must be {LIMITS.get(problem) or wanted(kind)}, got {value!r}{remedy}."
