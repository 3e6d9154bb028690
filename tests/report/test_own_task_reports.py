"""Reports of tasks that are not CinePile's: no category, any number of options, open questions, cameras for films."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cinetune.artifacts import Evaluation
from cinetune.errors import InputError
from cinetune.evaluation import ablation_effects, comparison, metrics, predictions
from cinetune.report import ablation_report, comparison_report, evaluation_report
from cinetune.task.description import LETTERS, Task
from cinetune.task.questions import ClipQuestions, Question

pytestmark = pytest.mark.evaluation

TASK = Task(group="camera", max_choices=4, open_questions=True, subtitles=False)
SORTED = Task(group="camera", min_choices=4, max_choices=4, categories={"where": "Where", "who": "Who"})


def clips_of(task: Task) -> list[ClipQuestions]:
    clips = []
    for number in range(8):
        questions = []
        for q in range(6):
            count = 4 if task.is_fixed else (2, 3, 4)[q % 3]
            options = () if task.open_questions and q == 5 else tuple(f"place {i}" for i in range(count))
            category = list(task.categories.values())[q % 2] if task.categories else ""
            answer = q % count if options else -1
            questions.append(
                Question(f"c{number}-{q}", f"Where {q}?", options, answer, category, words="" if options else "a gate")
            )
        clips.append(ClipQuestions(f"c{number}", f"yard {number // 2}", "", tuple(questions)))
    return clips


def evaluation(name: str, task: Task, is_right: Callable[[int], bool]) -> Evaluation:
    rows = []
    for number, (clip, question) in enumerate((c, q) for c in clips_of(task) for q in c.questions):
        count = len(question.choices)
        if not count:
            rows.append(predictions.answered_row(clip, question, "the gate" if is_right(number) else "no", ()))
            continue
        chosen = question.answer if is_right(number) else (question.answer + 1) % count
        shares = np.full(count, 0.4 / (count - 1))
        shares[chosen] = 0.6
        rows.append(predictions.answered_row(clip, question, LETTERS[chosen], tuple(shares)))
    table = predictions.as_table(rows, task)
    summary = metrics.summarise(table, name, "Yard", "test", None, 50, 1, "groups", task=task)
    return Evaluation(name, table, summary, {})


@pytest.fixture(params=[TASK, SORTED], ids=["no categories", "two categories"])
def pair(request: pytest.FixtureRequest) -> list[Evaluation]:
    return [
        evaluation("base", request.param, lambda n: n % 4 == 0),
        evaluation("finetuned", request.param, lambda n: n % 4 != 0),
    ]


def test_the_report_speaks_of_the_task_alone(pair: list[Evaluation], tmp_path: Path) -> None:
    base, finetuned = pair
    evaluation_report.write(
        tmp_path, base.summary, finetuned.summary, base.predictions, finetuned.predictions, "v1", None,
        bootstrap_samples=50, seed=1,
    )  # fmt: skip
    text = (tmp_path / "report.md").read_text()
    assert "over cameras" in text and "CinePile" not in text and "film" not in text and "Temporal" not in text
    assert ("Open questions" in text) == finetuned.task.open_questions
    assert ("| Where |" in text) == bool(finetuned.task.categories)
    told = evaluation_report.console(base.summary, finetuned.summary, "v1")
    assert "CinePile" not in told and ("WHERE" in told) == bool(finetuned.task.categories)
    letters = [line for line in text.splitlines() if line.startswith(("| A ", "| D ", "| E "))]
    assert letters and not any(line.startswith("| E ") for line in letters)


def test_comparisons_and_ablations_do_too(pair: list[Evaluation], tmp_path: Path) -> None:
    measured = comparison.measure(pair, "logit", 50, 1, "groups")
    assert measured["resampled"] == "cameras"
    assert measured["differences"]["finetuned"]["overall"]["n"] == (40 if pair[0].task.open_questions else 48)
    comparison_report.write(tmp_path / "comparison", pair, measured, [], "v1", str)
    assert "CinePile" not in (tmp_path / "comparison" / "report.md").read_text()
    tables = {"none": pair[1].predictions, "neither": pair[0].predictions}
    summaries = {"none": pair[1].summary, "neither": pair[0].summary}
    effects = ablation_effects.measure(tables, summaries, 50, 1, "groups", pair[0].task)
    ablation_report.write(tmp_path / "ablations", effects)
    assert "over cameras" in (tmp_path / "ablations" / "report.md").read_text()


def test_the_wrong_kind_of_table_is_told(pair: list[Evaluation]) -> None:
    table: pd.DataFrame = pair[0].predictions
    if pair[0].task.counts_choices:
        with pytest.raises(InputError, match="num_choices"):
            metrics.scored(table.drop(columns="num_choices"), pair[0].task)
    with pytest.raises(InputError, match="'camera'"):
        metrics.summarise(table.drop(columns="camera"), "m", "d", "s", None, 5, 1, "groups", task=pair[0].task)
