"""What is evaluated: the base, an adapter, a server, a baseline that looks at nothing, predictions made elsewhere."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from cinetune import provenance
from cinetune.artifacts import PROMPT, Adapter, seen_by
from cinetune.errors import InputError
from cinetune.evaluation import predictions
from cinetune.evaluation.ablations import PLAIN
from cinetune.evaluation.predictions import BASELINES
from cinetune.files import content_digest, text_digest
from cinetune.inference.server import evaluation as server
from cinetune.inference.server.endpoint import PREFIX, Endpoint
from cinetune.model.lookup import measure_base
from cinetune.params import Params
from cinetune.task import description, prompts
from cinetune.task.description import Task
from cinetune.task.questions import ClipQuestions

logger = logging.getLogger(__name__)
ADDRESSES = ("runs:/", "models:/")
FILES = (".parquet", ".csv", ".jsonl")
SETTINGS = "settings"
REMEDY = (
    f"train one, or choose finetuned, base, {', '.join(BASELINES)}, an adapter folder, runs:/..., models:/..., "
    "openai:<base url>#<model> or a predictions file"
)


@dataclass(frozen=True)
class Subject:
    """`label` names its folder, `title` its reports; a model without an adapter is the base alone.

    words: of the template that `evaluate.prompt` names, as its file holds them; None where it names none.
    """

    label: str
    title: str
    adapter: Adapter | None = None
    predictions: Path | None = None
    is_baseline: bool = False
    endpoint: Endpoint | None = None
    words: Mapping[str, Any] | None = None

    @property
    def is_model(self) -> bool:
        """Is it one that is loaded here?"""
        return not self.is_baseline and self.predictions is None and self.endpoint is None

    @property
    def looks(self) -> bool:
        """Is it shown a clip's frames here?"""
        return self.is_model or self.endpoint is not None

    def task(self, params: Params) -> Task:
        """That of the questions, in the words that it is asked with: those given, the task's own, the adapter's own."""
        task = description.of_folder(params.data.root)
        if self.words is not None:
            return prompts.worded(task, self.words, params.evaluate.prompt)
        own = self.adapter.task.prompt if self.adapter else None
        if own is None or self.adapter is None or task.prompt:
            return task
        return prompts.worded(task, own.model_dump(), str(self.adapter.folder / PROMPT))

    @property
    def notes(self) -> dict[str, Any]:
        """What metrics.json says beside the figures."""
        if self.words is not None:
            return {"prompt": self.words}
        if self.adapter is None or self.adapter.has_prompt:
            return {}
        unknown = f"adapter {self.adapter.name!r} does not say which prompt it was trained on"
        return {"prompt_note": f"{unknown}: it is asked with this project's (-P prompt=<file> names another)"}

    def folder_name(self, ablation: str) -> str:
        return self.label if ablation == PLAIN else f"{self.label}-{ablation}"


def resolve(params: Params, ablations: Sequence[str], finetuned: Path, fetch: Callable[[str], Path]) -> Subject:
    """What `evaluate.model` names; finetuned: the pipeline's adapter; fetch: a folder for an MLflow address.

    Raises InputError for what is none of these, for ablations of what is shown nothing, and for an adapter that was
    trained with other settings than the params hold, unless `evaluate.allow` is "settings".
    """
    subject = _named(params, finetuned, fetch)
    # Of a predictions file an ablation only says what it was made under.
    if (len(ablations) > 1 and subject.predictions) or (subject.is_baseline and tuple(ablations) != (PLAIN,)):
        model = params.evaluate.model
        raise InputError(f"evaluate.model {model!r} is shown nothing, so nothing can be withheld from it.")
    if params.evaluate.prompt:
        if not subject.looks:
            raise InputError(f"evaluate.model {params.evaluate.model!r} is asked nothing: leave evaluate.prompt out.")
        subject = replace(subject, words=prompts.read(Path(params.evaluate.prompt)))
    task = subject.task(params)
    allowed = set(params.evaluate.allow.replace(",", " ").split())
    if not allowed <= {SETTINGS, server.UNANSWERED}:
        raise InputError(
            f"evaluate.allow must be empty, {SETTINGS} or {server.UNANSWERED}, got {params.evaluate.allow!r}."
        )
    if subject.endpoint:
        server.check(params, ablations)
    if subject.adapter and SETTINGS not in allowed:
        subject.adapter.check_settings(params, task)
    if "prompt_note" in subject.notes:
        logger.warning("%s.", subject.notes["prompt_note"])
    return subject


def _named(params: Params, finetuned: Path, fetch: Callable[[str], Path]) -> Subject:
    name, base = params.evaluate.model, params.model.base
    if name == "base":
        return Subject("base", base)
    if name in BASELINES:
        return Subject(name, f"{name} (a baseline that looks at nothing)", is_baseline=True)
    if name.startswith(PREFIX):
        endpoint = Endpoint.parse(name)
        return Subject(_label(name), endpoint.title, endpoint=endpoint)
    if name == "finetuned":
        return Subject(name, f"{base} + {finetuned}", Adapter.open(finetuned, name, REMEDY))
    stem = name.removesuffix(Path(name).suffix) if name.endswith(FILES) else name
    label = _label(stem)
    if name.endswith(FILES):
        return Subject(label, name, predictions=Path(name))
    folder = fetch(name) if name.startswith(ADDRESSES) else Path(name)
    return Subject(label, f"{base} + {name}", Adapter.open(folder, name, REMEDY))


def _label(name: str) -> str:
    """A folder's name."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[-60:].strip("-.") or "model"


def without_model(subject: Subject, clips: Sequence[ClipQuestions], seed: int, task: Task) -> pd.DataFrame | None:
    """Predictions that no model is asked for: a baseline's, or those of a file scored anew; None for a model."""
    if subject.is_baseline:
        return predictions.baseline(subject.label, clips, seed, task)
    return predictions.read(subject.predictions, clips, task) if subject.predictions else None


def made_from(subject: Subject, params: Params, frames: Path) -> dict[str, Any]:
    """Settings, and digests of what is read, of all that decides the predictions; frames: the frame store's folder.

    What no model looks at is None. Raises InputError where the base is no model, or not the one of training.
    """
    base = measure_base(params.model) if subject.is_model else {}
    if subject.adapter and params.evaluate.allow != SETTINGS:
        subject.adapter.check_base(base)
    given = subject.predictions
    return {
        "adapter_digest": subject.adapter.digest if subject.adapter else None,
        "base_digest": None,
        "tokenizer_digest": None,
        "questions_digest": content_digest(Path(params.data.root) / f"questions/{params.evaluate.split}.parquet"),
        "predictions_digest": content_digest(given) if given and given.is_file() else None,
        "frames_digest": content_digest(frames) if subject.looks and frames.is_dir() else None,
        **seen_by(params, base, subject.task(params)),
        **({"base_commit": base["commit"]} if "commit" in base else {}),
        "parsers_hash": provenance.source_digest("answers"),
        "params": params.sections("data", "model", "prompt", "frames"),
        **({"server": server.made_from(subject.endpoint, params)} if subject.endpoint else {}),
    }


def digest_of(made: Mapping[str, Any], ablations: Sequence[str], params: Params, device: str) -> str:
    """16 hexadecimal digits, others for whatever would lead to other replies."""
    chosen = params.evaluate
    decided_by = {
        **made,
        "ablations": list(ablations),
        "asked": [chosen.questions_per_pack, chosen.max_new_tokens],
        "code": [provenance.source_digest(), version("torch"), device.partition(":")[0]],
    }
    return text_digest(json.dumps(decided_by, sort_keys=True))[:16]
