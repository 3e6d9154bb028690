"""Predictions as a table, one row a question: from replies, from a file made elsewhere, from a baseline.

Parsers are applied here and nowhere else, so that saved words can be rescored without a model. Letters and gold
stand as the question was asked: `rotation` says by how many places its options were moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import pyarrow as pa

from cinetune.answers.lenient import is_abstention, parse_lenient
from cinetune.answers.strict import most_probable, parse_strict
from cinetune.errors import InputError, reason_of
from cinetune.evaluation.ablations import rotate
from cinetune.evaluation.metrics import NUM_CHOICES, WORDS
from cinetune.task.description import CINEPILE, LETTERS, Task
from cinetune.task.questions import ClipQuestions, Question

OK, MISSING_CLIP = "ok", "missing_clip"
PROBABILITIES = tuple(f"p_{letter}" for letter in LETTERS)
LETTER_MASS = "letter_mass"
# What a task may have besides its group, and where it stands.
SLICES = ("year", "genres", "url", "category", "hard_split", "visual_reliance")
# Under which name a row holds its clip's group until it stands in a table.
GROUP = "group"
BASELINES = ("random", "longest-option")
# How far shares of probability that went through a file may be from 1 together.
SUM_TOLERANCE = 0.01


def columns_of(task: Task) -> tuple[str, ...]:
    """The columns of a task's predictions; the number of options is told where it may differ."""
    slices = [name for name in SLICES if task.column(name) and (name != "category" or task.categories)]
    of_open = [WORDS] if task.open_questions else []
    return (
        "question_id", "clip_id", task.group, *slices, "question",
        "rotation", "gold", "raw", "strict", "lenient", "abstained", "logit", *PROBABILITIES[: task.max_choices],
        LETTER_MASS, "status", "reason", "question_digest", *([NUM_CHOICES] if task.counts_choices else []), *of_open,
    )  # fmt: skip


def answered_row(
    clip: ClipQuestions,
    question: Question,
    raw: str,
    probabilities: Sequence[float],
    rotation: int = 0,
    letter_mass: float = float("nan"),
) -> dict[str, Any]:
    """A reply read by every scorer; probabilities are of the letters as asked, letter_mass as in `scoring.Reply`."""
    if question.is_open:
        return _row(clip, question, rotation) | {"raw": raw, "status": OK}
    choices = rotate(question.choices, rotation)
    gold = (question.answer - rotation) % len(choices)
    return _row(clip, question, rotation) | {
        "raw": raw,
        "strict": parse_strict(raw, choices, gold),
        "lenient": parse_lenient(raw, choices),
        "abstained": is_abstention(raw, choices),
        "logit": most_probable(probabilities),
        **dict(zip(PROBABILITIES, probabilities, strict=False)),
        LETTER_MASS: letter_mass,
        "status": OK,
    }


def missing_row(clip: ClipQuestions, question: Question, reason: str, rotation: int = 0) -> dict[str, Any]:
    """A question that could not be asked, as its clip is missing."""
    return _row(clip, question, rotation) | {"status": MISSING_CLIP, "reason": reason}


def _row(clip: ClipQuestions, question: Question, rotation: int) -> dict[str, Any]:
    """What is known of a question before there is a reply; an open one has no right letter."""
    count = len(question.choices)
    return {
        **_about(clip, question),
        "rotation": rotation,
        "gold": LETTERS[(question.answer - rotation) % count] if count else None,
        "raw": "",
        **dict.fromkeys(("strict", "lenient", "logit")),
        "abstained": False,
        **dict.fromkeys((*PROBABILITIES, LETTER_MASS), float("nan")),
        "reason": "",
    }


def as_table(rows: Sequence[Mapping[str, Any]], task: Task = CINEPILE) -> pd.DataFrame:
    columns = columns_of(task)
    table = pd.DataFrame([{**row, task.group: row[GROUP]} for row in rows], columns=list(columns), dtype=object)
    # Texts stay objects: a letter that is missing is None here, never a NaN among texts.
    kinds = dict.fromkeys((*PROBABILITIES, LETTER_MASS), float) | {"rotation": int, "abstained": bool, "year": "Int64"}
    kinds |= {NUM_CHOICES: int}
    return table.astype({name: kind for name, kind in kinds.items() if name in columns})


def baseline(name: str, clips: Sequence[ClipQuestions], seed: int, task: Task = CINEPILE) -> pd.DataFrame:
    """What a guesser says: `random` any letter, each question by a throw of its own; `longest-option` the longest."""

    def letter(question: Question) -> int:
        if name == "random":
            return int(
                np.random.default_rng([seed, crc32(question.question_id.encode())]).integers(len(question.choices))
            )
        return max(range(len(question.choices)), key=lambda place: len(question.choices[place]))

    rows = []
    for clip in clips:
        for question in clip.questions:
            if question.is_open:
                rows.append(answered_row(clip, question, "", ()))
                continue
            chosen = letter(question)
            shares = [float(place == chosen) for place in range(len(question.choices))]
            rows.append(answered_row(clip, question, LETTERS[chosen], shares))
    return as_table(rows, task)


def read(path: Path, clips: Sequence[ClipQuestions], task: Task = CINEPILE) -> pd.DataFrame:
    """A file of predictions, made here or elsewhere, scored by these parsers; rows in the questions' order.

    Parquet, CSV or JSON lines with `question_id` and `raw`; `status`, `reason`, `rotation`, a column `p_A`, `p_B`, ...
    of each letter and `letter_mass` are read where they stand. Raises InputError where a question is foreign, twice or
    left out, or a value is of the wrong kind.
    """
    asked = [(clip, question) for clip in clips for question in clip.questions]
    counts = {question.question_id: len(question.choices) for _, question in asked}
    given = _checked(_read_table(path), path, task, counts).set_index("question_id", drop=False)
    known = {question.question_id for _, question in asked}
    foreign = [name for name in given.index if name not in known]
    if foreign:
        raise InputError(
            f"predictions file {str(path)!r} holds {len(foreign)} questions that are not in this split, first "
            f"{foreign[0]!r}: name one that was made on the same questions."
        )
    absent = [question.question_id for _, question in asked if question.question_id not in given.index]
    if absent:
        raise InputError(
            f"predictions file {str(path)!r} lacks {len(absent)} of {len(asked)} questions, first {absent[0]!r}: add "
            f"them with an empty raw, or with the status {MISSING_CLIP!r} where the clip could not be had."
        )
    by_id = given.to_dict("index")
    for _, question in asked:
        told = by_id[question.question_id]["question_digest"]
        if isinstance(told, str) and told != question.digest:
            raise InputError(
                f"predictions file {str(path)!r} answers question {question.question_id!r} with another text or other "
                "options than this split has: name one that was made on the same questions."
            )
    return as_table([_scored_row(clip, question, by_id[question.question_id]) for clip, question in asked], task)


def _about(clip: ClipQuestions, question: Question) -> dict[str, Any]:
    return {
        "question_id": question.question_id,
        "clip_id": clip.clip_id,
        GROUP: clip.group,
        "year": clip.year,
        "genres": "|".join(clip.genres),
        "url": clip.url,
        "category": question.category,
        "hard_split": question.hard_split,
        "visual_reliance": question.visual_reliance,
        "question": question.text,
        "question_digest": question.digest,
        NUM_CHOICES: len(question.choices),
        WORDS: question.words,
    }


def _scored_row(clip: ClipQuestions, question: Question, given: Mapping[str, Any]) -> dict[str, Any]:
    rotation = int(given["rotation"])
    if given["status"] != OK:
        return missing_row(clip, question, given["reason"], rotation)
    shares = tuple(float(given[name]) for name in PROBABILITIES[: len(question.choices)])
    return answered_row(clip, question, given["raw"], shares, rotation, float(given[LETTER_MASS]))


def _read_table(path: Path) -> pd.DataFrame:
    readers = {
        ".parquet": pd.read_parquet,
        ".csv": lambda file: pd.read_csv(file, keep_default_na=False, dtype={"question_id": str, "raw": str}),
        ".jsonl": lambda file: pd.read_json(file, lines=True, dtype={"question_id": str}),
    }
    if not path.is_file():
        raise InputError(f"predictions file {str(path)!r} does not exist: name a .parquet, .csv or .jsonl file.")
    try:
        return readers[path.suffix](path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{str(path)!r} is not a predictions file: {reason_of(error)}.") from None


def _checked(table: pd.DataFrame, path: Path, task: Task, counts: Mapping[str, int]) -> pd.DataFrame:
    """The columns that count, with defaults for those that may be left out; counts: of options, by question."""
    columns = PROBABILITIES[: task.max_choices]

    def refuse(problem: str) -> InputError:
        return InputError(f"predictions file {str(path)!r} {problem}.")

    for name in ("question_id", "raw"):
        if name not in table.columns:
            raise refuse(f"lacks the column {name!r}: one row a question, with question_id and raw, is needed")
    twice = table.loc[table["question_id"].duplicated(), "question_id"]
    if len(twice):
        raise refuse(f"answers question {twice.iloc[0]!r} twice: remove one of the rows")
    table = table.reindex(
        columns=["question_id", "raw", "status", "reason", "rotation", "question_digest", *columns, LETTER_MASS]
    )
    table = table.astype({"raw": object, "status": object, "reason": object})
    table["status"] = table["status"].where(table["status"].notna() & (table["status"] != ""), OK)
    table["raw"] = table["raw"].where(table["raw"].notna(), "")
    table["reason"] = table["reason"].where(table["reason"].notna(), "").astype(str)
    for name in ("status", "raw"):
        wrong = [value for value in table[name] if not isinstance(value, str)]
        if wrong:
            raise refuse(f"holds a {name} that is no text, {wrong[0]!r}: write it in quotes")
    table[LETTER_MASS] = pd.to_numeric(table[LETTER_MASS], errors="coerce")
    shares = table[list(columns)].apply(pd.to_numeric, errors="coerce")
    table[list(columns)] = shares
    outside = ~table[LETTER_MASS].between(0, 1) & table[LETTER_MASS].notna()
    if outside.any():
        question = table.loc[outside, "question_id"].iloc[0]
        raise refuse(f"has a {LETTER_MASS} of question {question!r} that is not a probability from 0 to 1")
    # Of a question that is not known here all letters are looked at, until it is refused.
    number = table["question_id"].map(lambda name: counts.get(name, len(columns))).to_numpy()
    has_letter = np.arange(len(columns)) < number[:, None]
    whole = (shares.notna() | ~has_letter).all(axis=1) & (number > 0)
    shares = shares.where(has_letter)
    unfit = ((shares < 0) | (shares > 1)).any(axis=1) | (whole & ((shares.sum(axis=1) - 1).abs() > SUM_TOLERANCE))
    if unfit.any():
        question = table.loc[unfit, "question_id"].iloc[0]
        told = f"{columns[0]} to {columns[-1]}"
        raise refuse(f"has probabilities of question {question!r} that are not shares of 1: give {told} as such")
    rotation = pd.to_numeric(table["rotation"], errors="coerce").fillna(0)
    if not rotation.isin(range(task.max_choices)).all():
        raise refuse(f"has a rotation that is not a whole number from 0 to {task.max_choices - 1}")
    return table.assign(rotation=rotation.astype(int))
