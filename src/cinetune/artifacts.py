"""The folders that stages hand to each other, an adapter and an evaluation: written, opened and checked here alone.

<adapter>/     adapter_config.json, adapter_model.safetensors (PEFT's layout)
               params.json       the settings that it was trained with
               prompt.json       the prompt template that it was trained on, in whose words it is asked
               task.yaml         the task that it was trained on; none for CinePile's
               training.json     steps and validation accuracy; commit and digests of a base from the hub
<evaluation>/  predictions.parquet, metrics.json
               made_from.json    digests and settings of all that decides the predictions
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune import params as params_module
from cinetune import provenance
from cinetune.errors import InputError
from cinetune.files import folder_digest, read_json, whole_folder, write_json
from cinetune.frames.sampling import FrameSettings, identity
from cinetune.params import Params
from cinetune.task import description, prompts
from cinetune.task.description import CINEPILE, Task

if TYPE_CHECKING:
    import pandas as pd

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PROMPT, MADE_WITH, TRAINING = "prompt.json", "params.json", "training.json"
PREDICTIONS, METRICS, MADE_FROM = "predictions.parquet", "metrics.json", "made_from.json"
# What made_from.json says of what decides a model's answers, in words.
MEASURED = {
    "base_digest": "base model (other files)",
    "tokenizer_digest": "tokenizer",
    "frames_identity": "choice of frames",
    "prompt_hash": "prompt template",
    "prompt_code_hash": "code of the prompt",
}
# What a model is and what it is shown; the rest of an adapter's settings is how it was trained.
SEEN_SECTIONS = ("model", "prompt", "frames")
FRAME_KEYS = {field.name for field in fields(FrameSettings)}


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter; `name` is what its user called it."""

    folder: Path
    name: str

    @classmethod
    def open(cls, folder: str | Path, name: str = "", remedy: str = "train one, or name another folder") -> Adapter:
        """The adapter in a folder: itself, or below it as in a registered model.

        Raises InputError where there is none, or where its prompt or task cannot be used.
        """
        folder = Path(folder)
        found = [folder / CONFIG] if (folder / CONFIG).is_file() else sorted(folder.rglob(CONFIG))
        if not found or not (found[0].parent / WEIGHTS).is_file():
            lacking = WEIGHTS if found else CONFIG
            raise InputError(
                f"there is no adapter in {name or str(folder)!r} (no {lacking} in {str(folder)!r}): {remedy}."
            )
        adapter = cls(found[0].parent, name or str(folder))
        _ = adapter.task
        return adapter

    @cached_property
    def digest(self) -> str:
        """sha256 over the names and contents of its files."""
        return folder_digest(self.folder)

    @cached_property
    def task(self) -> Task:
        """What it was trained to answer, in the words of its own prompt where that is not this project's."""
        task, saved = description.of_folder(self.folder), self.folder / PROMPT
        return prompts.worded(task, prompts.read(saved), str(saved)) if saved.is_file() else task

    @property
    def has_prompt(self) -> bool:
        """Whether it says which prompt template it was trained on; one made elsewhere may not."""
        return self.task.prompt is not None or (self.folder / PROMPT).is_file()

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Sections of params that made it; empty for an adapter made elsewhere."""
        saved = self.folder / MADE_WITH
        found: dict[str, dict[str, Any]] = read_json(saved) if saved.is_file() else {}
        return found

    @property
    def training(self) -> dict[str, Any]:
        """Steps and validation accuracy of its training, and what its base was; empty for an adapter made elsewhere."""
        saved = self.folder / TRAINING
        found: dict[str, Any] = read_json(saved) if saved.is_file() else {}
        return found

    @property
    def base_commit(self) -> str:
        """Of a base from the hub; empty for another, and where it was not recorded."""
        return str(self.training.get("base", {}).get("commit", ""))

    def params(self, params: Params) -> Params:
        """The params with the settings that it was trained with in their place."""
        if not self.settings:
            return params
        content = params.to_dict()
        for name, values in self.settings.items():
            content[name] = {**content.get(name, {}), **values}
        return params_module.from_dict(content, str(self.folder / MADE_WITH))

    def differences(self, settings: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Any, Any]]:
        """Where settings differ from those of its training in what it is shown: key -> (its own, theirs)."""
        return differences(self.settings, settings)

    def check_settings(self, params: Params, task: Task) -> None:
        """Raises InputError for params, or a task's prompt, that would show it something else than its training did."""
        if self.has_prompt and prompts.template(task) != prompts.template(self.task):
            given = params.evaluate.prompt
            other = f"in {given!r}" if given else f"of the questions in {params.data.root!r}"
            remedy = "leave evaluate.prompt out" if given else "evaluate it on questions of its own task"
            raise InputError(
                f"adapter {self.name!r} was trained with another prompt than that {other}: {remedy}, or evaluate it "
                "so on purpose with -P allow=settings, which register refuses."
            )
        for name, (own, other) in self.differences(params.to_dict()).items():
            raise InputError(
                f"adapter {self.name!r} was trained with {name}={own!r}, now it is {other!r}: restore it, or evaluate "
                "the adapter so on purpose with -P allow=settings, which register refuses."
            )

    def check_base(self, base: Mapping[str, str]) -> None:
        """Raises InputError for a base from the hub that has changed since its training; `base` as it was measured."""
        own = self.training.get("base", {})
        for name in ("base", "tokenizer"):
            if own.get(name, base.get(name)) != base.get(name):
                told = MEASURED[f"{name}_digest"]
                raise InputError(
                    f"adapter {self.name!r} was trained on commit {own['commit']} of its base, and commit "
                    f"{base.get('commit')} has another {told}: set model.revision to the first, or train it again."
                )


@contextmanager
def writing_adapter(
    target: Path, settings: Mapping[str, Any], summary: Mapping[str, Any], task: Task
) -> Iterator[Path]:
    """A folder to save weights to; it becomes `target`, with its settings and prompt, when the block ends well."""
    with whole_folder(target) as folder:
        yield folder
        write_json(folder / MADE_WITH, settings)
        write_json(folder / PROMPT, prompts.template(task))
        if task != CINEPILE:
            description.write(folder, task)
        write_json(folder / TRAINING, summary)


@dataclass(frozen=True)
class Evaluation:
    """Saved results of one model: one row a question, what metrics.json holds, and what they were made from."""

    name: str
    predictions: pd.DataFrame
    summary: Mapping[str, Any]
    made_from: Mapping[str, Any]

    @property
    def task(self) -> Task:
        """What was asked."""
        return description.saved(self.summary.get("task"))

    @classmethod
    def open(cls, folder: str | Path, name: str = "", remedy: str = "evaluate it first") -> Evaluation:
        """The one evaluation in a folder or below it. Raises InputError where there is none, several or half of one."""
        import pandas as pd

        folder = Path(folder)
        name = name or str(folder)
        found = [folder] if (folder / METRICS).is_file() else sorted(path.parent for path in folder.rglob(METRICS))
        if len(found) != 1:
            problem = f"{len(found)} evaluations" if found else "no evaluation"
            raise InputError(f"{name!r} holds {problem}: {remedy}.")
        if not (found[0] / PREDICTIONS).is_file():
            raise InputError(f"{str(found[0])!r} has {METRICS} and no {PREDICTIONS}: evaluate {name!r} again.")
        made_from = found[0] / MADE_FROM
        return cls(
            name,
            pd.read_parquet(found[0] / PREDICTIONS),
            read_json(found[0] / METRICS),
            read_json(made_from) if made_from.is_file() else {},
        )

    def write(self, target: Path) -> None:
        """As a folder, whole or not at all."""
        with whole_folder(target) as folder:
            self.predictions.to_parquet(folder / PREDICTIONS, index=False)
            write_json(folder / METRICS, self.summary)
            write_json(folder / MADE_FROM, self.made_from)

    def check_of(self, adapter: Adapter, served: Params, measured: Mapping[str, str]) -> None:
        """Raises InputError unless this is an evaluation of all of that adapter, shown what a version will show it.

        served: the params that the version is made with; measured: digests and hashes of what it will use, under the
        names of made_from.json.
        """
        remedy = f"evaluate it (`mlflow run . -e evaluate -P model={adapter.name}`) and name the result"
        if self.made_from.get("adapter_digest") != adapter.digest:
            raise InputError(f"the evaluation in {self.name!r} is of another adapter than {adapter.name!r}: {remedy}.")
        if self.summary["ablation"]:
            ablation = self.summary["ablation"]
            raise InputError(f"the evaluation in {self.name!r} has the ablation {ablation!r}: name one without.")
        for name, (own, other) in differences(served.to_dict(), self.made_from["params"]).items():
            raise InputError(
                f"the evaluation in {self.name!r} was made with {name}={other!r}, but {adapter.name!r} will be served "
                f"with {own!r}: {remedy}, or register it with the params file that it was evaluated with."
            )
        for name, value in measured.items():
            # Evaluations of earlier versions say less of what they were made from.
            if self.made_from.get(name, value) != value:
                if name == "prompt_hash" and not adapter.has_prompt:
                    remedy = f"put that one into the adapter's folder as {PROMPT}, and {remedy}"
                raise InputError(
                    f"the evaluation in {self.name!r} was made with another {MEASURED[name]} than the one that "
                    f"{adapter.name!r} will be served with: {remedy}."
                )


def differences(
    settings: Mapping[str, Mapping[str, Any]], others: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[Any, Any]]:
    """Where two models are shown something else, or are something else: key -> (the one's value, the other's)."""
    return {
        f"{section}.{name}": (value, others[section][name])
        for section in SEEN_SECTIONS
        for name, value in settings.get(section, {}).items()
        if (section != "frames" or name in FRAME_KEYS) and others.get(section, {}).get(name, value) != value
    }


def seen_by(params: Params, base: Mapping[str, str], task: Task) -> dict[str, str]:
    """What decides a model's answers beside its weights, under the names of made_from.json.

    base: digests of the "base" and the "tokenizer", or nothing where no model is asked; a "commit" is left out. task:
    of the questions.
    """
    return {
        **{f"{name}_digest": digest for name, digest in base.items() if name != "commit"},
        "frames_identity": identity(FrameSettings.of(params.frames)),
        "prompt_hash": prompts.template_hash(task),
        "prompt_code_hash": provenance.prompt_code_digest(),
    }
