"""CinePile rows: schema, checks, grouping by clip and a split that keeps films apart.

Source of the schema: the dataset card of `tomg-group-umd/cinepile` on the Hugging Face hub.
"""

from __future__ import annotations

import json
import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cinetune.errors import InputError, reason_of
from cinetune.files import text_digest
from cinetune.task import clip_ids

logger = logging.getLogger(__name__)

LETTERS = "ABCDE"
NUM_CHOICES = len(LETTERS)
MAX_FILMS_NAMED = 5
# CinePile's names, line break included, and the short ones of metrics and tables.
CATEGORIES: dict[str, str] = {
    "Character and\nRelationship Dynamics": "crd",
    "Narrative and\nPlot Analysis": "npa",
    "Setting and\nTechnical Analysis": "sta",
    "Temporal": "temp",
    "Theme Exploration": "th",
}
COLUMNS = (
    "movie_name", "year", "genre", "yt_clip_title", "yt_clip_link", "movie_scene", "subtitles", "question", "choices",
    "answer_key", "answer_key_position", "question_category", "hard_split", "visual_reliance",
)  # fmt: skip
# movie_scene is the text from which the questions were written: it is kept in the files and never read here.


@dataclass(frozen=True)
class Question:
    question_id: str
    text: str
    choices: tuple[str, ...]
    answer: int
    category: str
    hard_split: str
    visual_reliance: str

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of its text, its options in the data's order and the right one."""
        return text_digest(json.dumps([self.text, self.choices, self.answer]))[:16]

    def reordered(self, order: Sequence[int]) -> Question:
        """The same question with its options in another order: `order[k]` is the option that comes to place k."""
        choices = tuple(self.choices[i] for i in order)
        return replace(self, choices=choices, answer=list(order).index(self.answer))


@dataclass(frozen=True)
class ClipQuestions:
    """A clip with its questions: the unit of work everywhere."""

    clip_id: str
    film: str
    subtitles: str
    questions: tuple[Question, ...]
    year: int | None = None
    genres: tuple[str, ...] = ()
    url: str = ""


def check_choices(choices: Any) -> str | None:
    """Why these options cannot be asked, or None: five different texts, none empty."""
    if isinstance(choices, str) or not isinstance(choices, Sequence | np.ndarray):
        return f"choices must be a list of {NUM_CHOICES} texts, got {choices!r}"
    if len(choices) != NUM_CHOICES:
        return f"choices must be {NUM_CHOICES}, got {len(choices)}: {list(choices)!r}"
    for choice in choices:
        if not isinstance(choice, str) or not choice.strip():
            return f"choices must be texts that are not empty, got {choice!r}"
    if len({choice.strip() for choice in choices}) < NUM_CHOICES:
        return f"choices must differ from each other, got {list(choices)!r}"
    return None


def check_text(name: str, value: Any) -> str | None:
    if not isinstance(value, str) or not value.strip():
        return f"{name} must be text that is not empty, got {value!r}"
    return None


def check_row(row: Mapping[str, Any]) -> str | None:
    """Why a row of CinePile cannot be used, or None."""
    reason = (
        clip_ids.check(row["clip_id"])
        or check_text("movie_name", row["movie_name"])
        or check_text("question", row["question"])
    )
    if reason:
        return reason
    # With the name it tells films apart, and so keeps the splits apart.
    if not _is_whole(row["year"]):
        return f"year must be a whole number, got {row['year']!r}"
    if not isinstance(row["subtitles"], str):
        return f"subtitles must be text, got {row['subtitles']!r}"
    reason = check_choices(row["choices"])
    if reason:
        return reason
    position, answer, category = row["answer_key_position"], row["answer_key"], row["question_category"]
    if not _is_whole(position) or not 0 <= position < NUM_CHOICES:
        return f"answer_key_position must be a whole number from 0 to {NUM_CHOICES - 1}, got {position!r}"
    if not isinstance(answer, str) or row["choices"][int(position)] != answer:
        return f"answer_key must be option {int(position)} of choices, got {answer!r}"
    if not isinstance(category, str) or category not in CATEGORIES:
        return f"question_category must be one of CinePile's five, got {category!r}"
    return None


def _is_whole(value: Any) -> bool:
    """A null elsewhere makes pandas read a column of whole numbers as floats, so 2.0 is whole."""
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def file_of(root: str | Path, split: str) -> Path:
    """Where a split's questions are. Raises InputError where they are missing."""
    path = Path(root) / "questions" / f"{split}.parquet"
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: run `dvc pull data.dvc` (or `python -m cinetune mini`) for CinePile-mini, or "
            "download and set data.root."
        )
    return path


def load(root: str | Path, split: str) -> list[ClipQuestions]:
    """The clips of `<root>/questions/<split>.parquet` with their questions, in the file's order.

    Raises InputError for a missing file, a missing column or the first row that cannot be used.
    """
    path = file_of(root, split)
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is not a Parquet file ({reason_of(error)}): run `dvc pull --force data.dvc`."
        ) from None
    return group(table, str(path))


def group(table: pd.DataFrame, origin: str) -> list[ClipQuestions]:
    """Rows in CinePile's columns plus `clip_id`, grouped by clip; `origin` names them in errors."""
    missing = [name for name in (*COLUMNS, "clip_id") if name not in table.columns]
    if missing:
        raise InputError(f"{origin} lacks the column {missing[0]!r}: CinePile's columns and clip_id are needed.")
    if table.empty:
        raise InputError(f"{origin} has no rows: nothing can be trained or evaluated on it.")
    films: dict[str, str] = {}
    subtitles: dict[str, str] = {}
    about: dict[str, dict[str, Any]] = {}
    questions: dict[str, list[Question]] = {}
    for number, row in enumerate(table.to_dict("records")):
        reason = check_row(row)
        if reason:
            # A list's text may come in several lines.
            reason = " ".join(reason.split())
            raise InputError(f"{origin}, row {number}: {reason}; remove or repair the row.")
        clip_id = row["clip_id"]
        of_clip = questions.setdefault(clip_id, [])
        film = f"{row['movie_name']} ({int(row['year'])})"
        if film_key(films.setdefault(clip_id, film)) != film_key(film):
            # It would stand on both sides of a split that keeps films apart.
            raise InputError(
                f"{origin}, row {number}: clip {clip_id!r} is of {film!r}, before it was of {films[clip_id]!r}."
            )
        subtitles.setdefault(clip_id, row["subtitles"])
        about.setdefault(clip_id, _about(row))
        of_clip.append(
            Question(
                question_id=f"{clip_id}-{len(of_clip):03d}",
                text=row["question"],
                choices=tuple(row["choices"]),
                answer=int(row["answer_key_position"]),
                category=row["question_category"],
                hard_split=str(row["hard_split"]),
                visual_reliance=str(row["visual_reliance"]),
            )
        )
    # One spelling of a film stands for all, so that results by film count it once.
    spelling = _spellings(films.values())
    return [
        ClipQuestions(clip_id, spelling[film_key(films[clip_id])], subtitles[clip_id], tuple(of_clip), **about[clip_id])
        for clip_id, of_clip in questions.items()
    ]


def _about(row: Mapping[str, Any]) -> dict[str, Any]:
    """What results are broken down by and linked to; whatever is not as it should be is left out."""
    genre = row["genre"]
    genres = [genre] if isinstance(genre, str) else genre if isinstance(genre, Sequence | np.ndarray) else []
    return {
        "year": int(row["year"]),
        "genres": tuple(name for name in genres if isinstance(name, str) and name.strip()),
        "url": row["yt_clip_link"] if isinstance(row["yt_clip_link"], str) else "",
    }


def film_key(film: str) -> str:
    """The same for one film, whatever Unicode form, case and spaces its name and year are written in."""
    return " ".join(unicodedata.normalize("NFKC", film).casefold().split())


def _spellings(films: Iterable[str]) -> dict[str, str]:
    """By key the first of each film's spellings, in their order."""
    found: dict[str, str] = {}
    for film in sorted(set(films)):
        found.setdefault(film_key(film), film)
    return found


def films_of(root: str | Path, split: str) -> set[str]:
    """Keys of the films that a split has questions about; none where it is not there or cannot be read."""
    path = Path(root) / "questions" / f"{split}.parquet"
    try:
        table = pd.read_parquet(path, columns=["movie_name", "year"])
    except (OSError, ValueError):
        return set()
    pairs = table.drop_duplicates().itertuples(index=False)
    return {film_key(f"{name} ({int(year)})") for name, year in pairs if isinstance(name, str) and _is_whole(year)}


def shared_films(films: Iterable[str], root: str | Path, other_split: str) -> list[str]:
    """Those of the films that the other split has questions about as well; logs a warning where there are any."""
    others = films_of(root, other_split)
    shared = sorted({film for film in films if film_key(film) in others})
    if shared:
        names = ", ".join(repr(film) for film in shared[:MAX_FILMS_NAMED])
        more = f" and {len(shared) - MAX_FILMS_NAMED} more" if len(shared) > MAX_FILMS_NAMED else ""
        logger.warning("Films in training and test questions alike: %d (%s%s).", len(shared), names, more)
    return shared


def split_films(
    clips: Sequence[ClipQuestions], fraction: float, seed: int
) -> tuple[list[ClipQuestions], list[ClipQuestions]]:
    """Training and validation clips; every film is wholly on one side, at least one film on each."""
    films = list(_spellings(clip.film for clip in clips).values())
    if len(films) < 2:
        raise InputError(
            f"the training questions come from {len(films)} film: at least 2 are needed to validate on one."
        )
    count = min(len(films) - 1, max(1, round(len(films) * fraction)))
    held_out = {film_key(film) for film in np.random.default_rng(seed).permutation(films)[:count]}
    sides: tuple[list[ClipQuestions], list[ClipQuestions]] = [], []
    for clip in clips:
        sides[film_key(clip.film) in held_out].append(clip)
    return sides
