"""Answer a split's questions and score the answers three ways.

Takes cache/frames/, <data.root>/questions/<split>.parquet and a model: `finetuned` (outputs/adapter), `base`,
an adapter folder, a `runs:/` or `models:/` address, `random`, `longest-option`, or a predictions file, whose words
are scored anew. Makes outputs/evaluation/{base,finetuned}/ (by hand:
outputs/runs/<run id>/evaluation/<model>[-<ablation>]/) with predictions.parquet and metrics.json. Run it with
`dvc repro`, or by hand with `mlflow run . -e evaluate -P ablations=all`. A run that was killed goes on where it was;
`torchrun --nproc-per-node 2 -m cinetune evaluate` shares the clips out.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune import processes, provenance, stages, tracking
from cinetune.errors import InputError
from cinetune.params import Params

if TYPE_CHECKING:
    import pandas as pd

    from cinetune.journal import Journal

SECTIONS = ("data", "model", "prompt", "frames", "evaluate")
PIPELINE_MODELS = ("base", "finetuned")
BASELINES = ("random", "longest-option")
# Parameters that a run's name begins with, or that make child runs.
NAMED = ("model", "ablation", "ablations")
ADDRESSES = ("runs:/", "models:/")
FILES = (".parquet", ".csv", ".jsonl")


@dataclass(frozen=True)
class Subject:
    """What is evaluated: `label` names its folder, `title` its reports; no adapter is the base alone."""

    label: str
    title: str
    adapter: Path | None = None
    predictions: Path | None = None
    is_baseline: bool = False

    @property
    def is_model(self) -> bool:
        return not self.is_baseline and self.predictions is None


def run(params: Params, is_pipeline: bool = False) -> Path | None:
    """The evaluation's folder; None in the processes that only share the work."""
    chosen = params.evaluate
    names = _ablations(params, is_pipeline)
    tags = stages.tags_of(params, is_pipeline) | {"evaluated": chosen.model}
    run_name = _run_name(params, names[0])
    with tracking.start("evaluate", tags, name=run_name) as tracked, tempfile.TemporaryDirectory() as scratch:
        tracked.log_params(stages.sections(params, *SECTIONS))
        stages.log_questions(tracked, params, chosen.split, "test")
        subject = _resolve(chosen.model, params, Path(scratch))
        # Of a predictions file `ablation` only says what it was made under.
        if (len(names) > 1 and subject.predictions) or (subject.is_baseline and names != ("none",)):
            raise InputError(f"evaluate.model {chosen.model!r} is shown nothing, so nothing can be withheld from it.")
        tables, journal = _predict(subject, params, names, tracked)
        if not tables:
            return None
        folder = stages.EVALUATION if is_pipeline else stages.RUNS / tracked.id / "evaluation"
        summaries = {names[0]: _save(tables[names[0]], subject, params, names[0], folder, tracked)}
        for name in names[1:]:
            with tracking.start("evaluate", tags | {"ablation": name}, tracked, _run_name(params, name)) as child:
                stages.log_questions(child, params, chosen.split, "test")
                child.log_params(stages.sections(params.override("evaluate", {"ablation": name}), *SECTIONS))
                summaries[name] = _save(tables[name], subject, params, name, folder, child)
        if len(names) > 1:
            _save_drops(tables, summaries, params, folder / f"{subject.label}-ablations", tracked)
        if journal:
            journal.remove()
        return folder / _name(subject, names[0])


def _run_name(params: Params, ablation: str) -> str:
    chosen = params.evaluate
    named = [] if ablation == "none" else [ablation]
    return stages.run_name("evaluate", chosen.model, *named, *stages.unusual(params, "evaluate", NAMED))


def _ablations(params: Params, is_pipeline: bool) -> tuple[str, ...]:
    """What is evaluated in this run, the one that gives the run its figures first."""
    from cinetune import ablations

    chosen = params.evaluate
    others = ablations.read_names(chosen.ablations)
    if is_pipeline and chosen.model not in PIPELINE_MODELS:
        raise InputError(f"evaluate: --pipeline needs --model {' or --model '.join(PIPELINE_MODELS)}.")
    if is_pipeline and (chosen.ablation != "none" or others):
        key = "ablations" if others else "ablation"
        value = getattr(chosen, key)
        raise InputError(
            f"evaluate.{key} is {value!r} in {stages.PARAMS}, but the pipeline evaluates whole "
            f"models: set it to none and run `mlflow run . -e evaluate -P {key}={value}`."
        )
    if others and chosen.ablation != "none":
        raise InputError(
            f"evaluate.ablation={chosen.ablation!r} and evaluate.ablations={chosen.ablations!r} exclude each other: "
            "leave ablation at none, for the drops are taken from the plain evaluation."
        )
    return (chosen.ablation, *others)


def _resolve(name: str, params: Params, scratch: Path) -> Subject:
    base = params.model.base
    if name == "base":
        return Subject("base", base)
    if name == "finetuned":
        return Subject("finetuned", f"{base} + {stages.ADAPTER}", _adapter(stages.ADAPTER, name))
    if name in BASELINES:
        return Subject(name, f"{name} (a baseline that looks at nothing)", is_baseline=True)
    stem = name.removesuffix(Path(name).suffix) if name.endswith(FILES) else name
    label = re.sub(r"[^\w.-]+", "-", stem).strip("-.")[-60:].strip("-.") or "model"
    if name.endswith(FILES):
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
            f"finetuned, base, {', '.join(BASELINES)}, an adapter folder, runs:/..., models:/... or a predictions file."
        )
    stages.refuse_other_prompt(found[0].parent)
    return found[0].parent


def _predict(
    subject: Subject, params: Params, names: Sequence[str], tracked: tracking.Run | tracking.UntrackedRun
) -> tuple[dict[str, pd.DataFrame], Journal | None]:
    """Predictions by ablation, and the journal of what was saved on the way."""
    from cinetune import predictions, questions

    clips = questions.load(params.data.root, params.evaluate.split)
    if subject.is_baseline:
        return {"none": predictions.baseline(subject.label, clips, params.evaluate.seed)}, None
    if subject.predictions:
        return {names[0]: predictions.read(subject.predictions, clips)}, None
    store = stages.open_frames(params)
    seen = stages.with_frames(clips, store)
    missing = {
        clip.clip_id: store.failures.get(clip.clip_id, "its frames were never made")
        for clip in clips
        if clip.clip_id not in store
    }

    from cinetune import evaluation, model
    from cinetune.journal import Journal

    share = evaluation.Share(processes.rank(), processes.count())
    folder = stages.CHECKPOINTS / f"evaluate-{_identity(subject, params, names)}"
    with Journal(folder, share.rank) as journal, evaluation.together(share):
        before = journal.take_over(tracked.id) if isinstance(tracked, tracking.Run) else None
        if before:
            tracking.fail(before, f"it was killed; run {tracked.id} goes on where it was")
        base, tokenizer = model.load_base(params.model, processes.device())
        model.check_frame_size(base.config, params.frames.size)
        evaluation.reply_to_clips(
            model.load_adapter(base, subject.adapter) if subject.adapter else base,
            model.encoder_of(params, base.config, tokenizer),
            seen,
            lambda clip_id: store.read(clip_id).frames,
            names,
            journal,
            share,
            questions_per_pack=params.evaluate.questions_per_pack,
            max_new_tokens=params.evaluate.max_new_tokens,
            progress=stages.progress_lines(f"evaluate {subject.label}"),
        )
    tables = {} if share.rank else evaluation.collect(clips, journal.read(), missing, names)
    return tables, journal


def _made_from(subject: Subject, params: Params) -> dict[str, Any]:
    """Hashes of all that decides the predictions."""
    from cinetune import answers, prompts
    from cinetune.frames import FrameSettings, identity

    base = params.model.base
    local = provenance.dvc_hash(base) or (provenance.folder_digest(Path(base)) if Path(base).is_dir() else None)
    index = stages.FRAMES / "index.parquet"
    return {
        "adapter_digest": provenance.folder_digest(subject.adapter) if subject.adapter else None,
        "base_model": local or f"{base}@{params.model.revision or 'main'}",
        "data": provenance.dvc_hash(params.data.root),
        "questions_md5": provenance.file_md5(Path(params.data.root) / f"questions/{params.evaluate.split}.parquet"),
        "frames_md5": provenance.file_md5(index) if subject.is_model else None,
        "frames_identity": identity(FrameSettings.of(params.frames)),
        "prompt_hash": prompts.template_hash(),
        "parsers_hash": provenance.file_md5(Path(answers.__file__)),
        "params": stages.sections(params, *SECTIONS[:-1]),
    }


def _identity(subject: Subject, params: Params, names: Sequence[str]) -> str:
    """Another for whatever would lead to other replies."""
    import torch

    chosen = params.evaluate
    decided_by = {
        **_made_from(subject, params),
        "ablations": names,
        "asked": [chosen.questions_per_pack, chosen.max_new_tokens],
        "code": [provenance.source_digest(), torch.__version__, torch.cuda.is_available()],
    }
    return hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()[:16]


def _name(subject: Subject, ablation: str) -> str:
    return subject.label if ablation == "none" else f"{subject.label}-{ablation}"


def _save(
    predictions: pd.DataFrame,
    subject: Subject,
    params: Params,
    ablation: str,
    parent: Path,
    tracked: tracking.Run | tracking.UntrackedRun,
) -> dict[str, Any]:
    """Write and log one evaluation; what its metrics.json holds."""
    from cinetune import metrics, published

    chosen = params.evaluate
    summary = metrics.summarise(
        predictions,
        subject.title,
        params.data.name,
        chosen.split,
        ablation,
        chosen.bootstrap_samples,
        chosen.seed,
        chosen.resample,
        published.published_average(params.data.name, subject.adapter is not None),
    )
    target = parent / _name(subject, ablation)
    with stages.whole_folder(target) as folder:
        predictions.to_parquet(folder / "predictions.parquet", index=False)
        stages.write_json(folder / "metrics.json", summary)
        stages.write_json(folder / stages.MADE_FROM, _made_from(subject, params))
    tracked.log_metrics(metrics.figures(summary))
    tracked.log_artifacts(target, f"evaluation/{target.name}")
    tracked.log_rows(predictions, "predictions.json")
    said = [
        f"{target}: {scorer} {scores['overall']['accuracy']:.1%} of {scores['overall']['n']} questions."
        for scorer, scores in summary["scorers"].items()
        if scores["overall"]["accuracy"] is not None
    ]
    tracked.describe("\n".join(f"- {line}" for line in said))
    print(*(f"evaluate: {line}" for line in said), sep="\n")
    return summary


def _save_drops(
    tables: Mapping[str, pd.DataFrame],
    summaries: Mapping[str, Mapping[str, Any]],
    params: Params,
    target: Path,
    tracked: tracking.Run | tracking.UntrackedRun,
) -> None:
    from cinetune import drops, page

    chosen = params.evaluate
    measured = drops.measure(tables, summaries, chosen.bootstrap_samples, chosen.seed, chosen.resample)
    with stages.whole_folder(target) as folder:
        stages.write_json(folder / "ablations.json", measured)
        title = f"What {measured['model']} loses on {measured['dataset']} ({measured['split']} split)"
        page.write(folder, title, [], drops.sections(measured))
    tracked.log_metrics(drops.figures(measured))
    tracked.log_artifacts(target, f"evaluation-{target.name}")
    print(drops.console(measured), f"evaluate: {target / 'report.html'}.", sep="\n\n")


def main(argv: Sequence[str]) -> int:
    arguments = stages.parse(argv, "evaluate", __doc__, has_pipeline=True, free=("model",))
    run(arguments.params, arguments.is_pipeline)
    return 0
