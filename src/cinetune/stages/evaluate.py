"""Answer a split's questions and score the answers three ways.

Takes cache/frames/, <data.root>/questions/<split>.parquet and a model: `finetuned` (outputs/adapter), `base`,
an adapter folder, a `runs:/` or `models:/` address, or a predictions file, whose words are scored anew. Makes
outputs/evaluation/{base,finetuned}/ (by hand: outputs/runs/<run id>/evaluation/<model>[-<ablation>]/) with
predictions.parquet and metrics.json. Run it with `dvc repro`, or by hand with
`mlflow run . -e evaluate -P ablation=neither`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune import provenance, stages, tracking
from cinetune.errors import InputError
from cinetune.params import Params

if TYPE_CHECKING:
    import pandas as pd

SECTIONS = ("data", "model", "prompt", "frames", "evaluate")
PIPELINE_MODELS = ("base", "finetuned")
ADDRESSES = ("runs:/", "models:/")


@dataclass(frozen=True)
class Subject:
    """What is evaluated: `label` names its folder, `title` its reports; no adapter is the base alone."""

    label: str
    title: str
    adapter: Path | None = None
    predictions: Path | None = None


def run(params: Params, is_pipeline: bool = False) -> Path:
    """The evaluation's folder."""
    chosen = params.evaluate
    if is_pipeline and chosen.model not in PIPELINE_MODELS:
        raise InputError(f"evaluate: --pipeline needs --model {' or --model '.join(PIPELINE_MODELS)}.")
    if is_pipeline and chosen.ablation != "none":
        raise InputError(
            f"evaluate.ablation is {chosen.ablation!r} in {stages.PARAMS}, but the pipeline evaluates whole "
            f"models: set it to none and run `mlflow run . -e evaluate -P ablation={chosen.ablation}`."
        )
    with (
        tracking.start("evaluate", stages.tags_of(params, is_pipeline) | {"evaluated": chosen.model}) as tracked,
        tempfile.TemporaryDirectory() as scratch,
    ):
        tracked.log_params(stages.sections(params, *SECTIONS))
        stages.log_questions(tracked, params, chosen.split, "test")
        subject = _resolve(chosen.model, params, Path(scratch))
        predictions = _rescore(subject.predictions, params) if subject.predictions else _predict(subject, params)
        folder = stages.EVALUATION if is_pipeline else stages.RUNS / tracked.id / "evaluation"
        ablation = "" if chosen.ablation == "none" else f"-{chosen.ablation}"
        target = folder / f"{subject.label}{ablation}"
        summary = _write(predictions, subject, params, target)
        tracked.log_metrics(_figures(summary))
        tracked.log_artifacts(target, f"evaluation/{target.name}")
        for scorer, scores in summary["scorers"].items():
            overall = scores["overall"]
            if overall["accuracy"] is not None:
                print(f"evaluate: {target}: {scorer} {overall['accuracy']:.1%} of {overall['n']} questions.")
        return target


def _resolve(name: str, params: Params, scratch: Path) -> Subject:
    base = params.model.base
    if name == "base":
        return Subject("base", base)
    if name == "finetuned":
        return Subject("finetuned", f"{base} + {stages.ADAPTER}", _adapter(stages.ADAPTER, name))
    label = re.sub(r"[^\w.-]+", "-", name.removesuffix(".parquet")).strip("-.")[-60:] or "model"
    if name.endswith(".parquet"):
        if not Path(name).is_file():
            raise InputError(f"predictions file {name!r} does not exist: name one that evaluate wrote.")
        return Subject(label, name, predictions=Path(name))
    if name.startswith(ADDRESSES):
        return Subject(label, f"{base} + {name}", _adapter(tracking.fetch(name, scratch), name))
    return Subject(label, f"{base} + {name}", _adapter(Path(name), name))


def _adapter(folder: Path, name: str) -> Path:
    """The adapter in a folder: itself, or below it as in a registered model."""
    found = [folder / "adapter_config.json"] if (folder / "adapter_config.json").is_file() else []
    found = found or sorted(folder.rglob("adapter_config.json"))
    if not found:
        raise InputError(
            f"model {name!r} is no adapter (no adapter_config.json in {str(folder)!r}): train one, or choose "
            "finetuned, base, an adapter folder, runs:/..., models:/... or a predictions file."
        )
    stages.refuse_other_prompt(found[0].parent)
    return found[0].parent


def _predict(subject: Subject, params: Params) -> pd.DataFrame:
    from cinetune import questions

    clips = questions.load(params.data.root, params.evaluate.split)
    store = stages.open_frames(params)
    stages.with_frames(clips, store)

    from cinetune import model, scoring

    base, tokenizer = model.load_base(params.model, model.default_device())
    model.check_frame_size(base.config, params.frames.size)
    prompt = params.prompt
    encoder = model.encoder_for(
        base.config, tokenizer, params.frames.num_frames, prompt.max_subtitle_tokens, prompt.truncate
    )
    return scoring.predict_clips(
        model.load_adapter(base, subject.adapter) if subject.adapter else base,
        encoder,
        clips,
        lambda clip_id: store.read(clip_id).frames if clip_id in store else None,
        questions_per_pack=params.evaluate.questions_per_pack,
        max_new_tokens=params.evaluate.max_new_tokens,
        ablation=params.evaluate.ablation,
        progress=stages.progress_lines(f"evaluate {subject.label}"),
    )


def _rescore(path: Path, params: Params) -> pd.DataFrame:
    """Saved predictions with their words read anew by this code's parsers."""
    import pandas as pd
    import pyarrow as pa

    from cinetune import answers, questions

    try:
        rows = pd.read_parquet(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{str(path)!r} is not a predictions file: {' '.join(str(error).split())[:200]}.") from None
    asked = {
        q.question_id: q for clip in questions.load(params.data.root, params.evaluate.split) for q in clip.questions
    }
    missing = [name for name in ("question_id", "raw", "status") if name not in rows.columns]
    unknown = [] if missing else [name for name in rows["question_id"] if name not in asked]
    if missing or unknown:
        problem = f"lacks column {missing[0]!r}" if missing else f"holds unknown question {unknown[0]!r}"
        raise InputError(
            f"predictions file {str(path)!r} {problem}: name one that evaluate wrote for the "
            f"{params.evaluate.split} split of {params.data.root!r}."
        )
    is_answered = rows["status"] == "ok"
    for scorer, parse in (
        ("strict", lambda raw, question: answers.parse_strict(raw, question.choices, question.answer)),
        ("lenient", lambda raw, question: answers.parse_lenient(raw, question.choices)),
    ):
        letters = [
            parse(raw, asked[name]) if ok else None
            for raw, name, ok in zip(rows["raw"], rows["question_id"], is_answered, strict=True)
        ]
        rows[scorer] = pd.Series(letters, index=rows.index, dtype=object)
    return rows


def _write(predictions: pd.DataFrame, subject: Subject, params: Params, target: Path) -> dict[str, Any]:
    from cinetune import metrics, prompts
    from cinetune.frames import FrameSettings, identity

    chosen = params.evaluate
    summary = metrics.summarise(
        predictions,
        subject.title,
        params.data.name,
        chosen.split,
        chosen.ablation,
        chosen.bootstrap_samples,
        chosen.seed,
    )
    made_from = {
        "adapter_digest": provenance.folder_digest(subject.adapter) if subject.adapter else None,
        "prompt_hash": prompts.template_hash(),
        "frames_identity": identity(FrameSettings.of(params.frames)),
        "params": stages.sections(params, *SECTIONS[:-1]),
    }
    with stages.whole_folder(target) as folder:
        predictions.to_parquet(folder / "predictions.parquet", index=False)
        stages.write_json(folder / "metrics.json", summary)
        stages.write_json(folder / stages.MADE_FROM, made_from)
    return summary


def _figures(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """metrics.json as MLflow metrics: `logit/accuracy`, `logit/crd/accuracy`, ..."""
    figures: dict[str, float | None] = {name: summary[name] for name in ("clips_missing", "questions_missing")}
    for scorer, scores in summary["scorers"].items():
        low, high = scores["overall"]["ci95"] or (None, None)
        figures |= {
            f"{scorer}/accuracy": scores["overall"]["accuracy"],
            f"{scorer}/ci_low": low,
            f"{scorer}/ci_high": high,
            f"{scorer}/unparsed": scores["unparsed"],
            f"{scorer}/n": scores["overall"]["n"],
        }
        figures |= {f"{scorer}/{name}/accuracy": part["accuracy"] for name, part in scores["categories"].items()}
    return figures


def main(argv: Sequence[str]) -> int:
    arguments = stages.parse(argv, "evaluate", __doc__, has_pipeline=True, free=("model",))
    run(arguments.params, arguments.is_pipeline)
    return 0
