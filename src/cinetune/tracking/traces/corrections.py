"""What people said of answers on their traces, as questions with the right option: corrections become training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinetune.task.description import CINEPILE, LETTERS, MAPPED, Task
from cinetune.tracking.store import experiment_id, open_store, reaching
from cinetune.tracking.traces.writing import ROW

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Trace

# What people call their verdicts: the right option (its letter or its text), or whether the model's is.
ANSWER, CORRECT = "answer", "correct"


def corrections(
    trace_ids: Sequence[str] | None = None, task: Task = CINEPILE, category: str = ""
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Questions whose right option a person has named on their traces, as rows in a task's columns.

    trace_ids: of these alone, else of all in the experiment; category: of questions that no data set has filed, the
    first of the task's where it is empty. Also gives, by trace, why one with a verdict makes no row. Raises ValueError
    for a category that the task does not have.
    """
    names = list(task.categories.values())
    category = category or next(iter(names), "")
    if names and category not in names:
        raise ValueError(f"category must be one of the task's ({', '.join(map(repr, names))}), got {category!r}")
    client = open_store()
    with reaching("traces cannot be read"):
        found = [client.get_trace(trace_id) for trace_id in trace_ids] if trace_ids is not None else _all_traces(client)
    rows: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    for trace in found:
        verdicts = _verdicts(trace)
        if not verdicts:
            continue
        made = _corrected(trace, verdicts, task, category)
        if isinstance(made, str):
            refused[trace.info.trace_id] = made
        else:
            rows.append(made)
    return rows, refused


def _all_traces(client: MlflowClient) -> list[Trace]:
    found: list[Trace] = []
    token = None
    while True:
        page = client.search_traces(locations=[experiment_id(client)], max_results=100, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _verdicts(trace: Trace) -> dict[str, Any]:
    """By name, the last that a person gave."""
    given = [item for item in trace.info.assessments if item.source and item.source.source_type == "HUMAN"]
    given = [item for item in given if item.valid is not False and item.name in (ANSWER, CORRECT)]
    return {item.name: item.value for item in sorted(given, key=lambda item: item.last_update_time_ms or 0)}


def _corrected(trace: Trace, verdicts: Mapping[str, Any], task: Task, category: str) -> dict[str, Any] | str:
    """A row, or why there is none."""
    root = next((span for span in trace.data.spans if span.parent_id is None), None)
    row = root.attributes.get(ROW) if root else None
    if root is None or not row:
        return "it is no question of ours"
    if not row["choices"]:
        return "it was asked without options"
    if row["subtitles"] is None:
        return "its subtitles were left out (trace.content)"
    if ANSWER in verdicts:
        right = _option(str(verdicts[ANSWER]).strip(), row["choices"])
    else:
        right = _option(str(root.attributes.get("choice")), row["choices"]) if _is_yes(verdicts[CORRECT]) else None
    if right is None:
        return f"no option is named as the right one ({ANSWER}: a letter, or an option's text)"
    made: dict[str, Any] = {"group": "unknown", "year": 0, "genres": [], "clip_id": trace.info.trace_id}
    made |= {"category": category, "hard_split": "False", "visual_reliance": "0"}
    made |= {name: value for name, value in row.items() if value not in (None, "")}
    made |= {"answer": right, "answer_text": row["choices"][right]}
    return {task.column(name): made.get(name, "") for name in MAPPED if task.column(name)}


def _option(said: str, choices: Sequence[str]) -> int | None:
    if said.upper() in tuple(LETTERS):
        return LETTERS.index(said.upper())
    return choices.index(said) if said in choices else None


def _is_yes(value: Any) -> bool:
    return value is True or str(value).strip().lower() in ("true", "yes")
