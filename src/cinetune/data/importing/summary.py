"""What an import found, in figures and in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cinetune.task.description import LETTERS

MAX_REJECTED_SHOWN = 5
Row = Mapping[str, Any]


def measure(
    rows: Mapping[str, Sequence[Row]], rejected: Sequence[Mapping[str, str]], num_rows: int, unseen: int
) -> dict[str, Any]:
    """Sizes, balance of letters, what splits share; rows by split, in the columns of a data folder.

    unseen: videos that exist and that no row asks about.
    """
    return {
        "rows": num_rows,
        "rows_rejected": len(rejected),
        "videos_without_questions": unseen,
        "splits": {split: _of_split(kept) for split, kept in rows.items()},
        "shared_questions": _num_shared(rows),
    }


def _of_split(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "questions": len(rows),
        "open_questions": sum(not row["choices"] for row in rows),
        "clips": len({row["clip_id"] for row in rows}),
        "groups": len({row["group"] for row in rows}),
        "options": _counted(len(row["choices"]) for row in rows if row["choices"]),
        "letters": _counted(LETTERS[row["answer"]] for row in rows if row["choices"]),
        "categories": _counted(row["category"] for row in rows if row["category"]),
    }


def _counted(values: Iterable[Any]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _num_shared(rows: Mapping[str, Sequence[Row]]) -> int:
    """Questions of the test whose text and options are in another split too, about another clip."""

    def keys(kept: Iterable[Row]) -> set[tuple[str, ...]]:
        return {(row["question"].casefold(), *sorted(map(str.casefold, row["choices"] or ()))) for row in kept}

    others = keys(row for split, kept in rows.items() if split != "test" for row in kept)
    return len(keys(rows.get("test", ())) & others)


def sentences(found: Mapping[str, Any], word: str) -> list[str]:
    """For people; `word` is what groups are called."""
    lines = []
    for split, numbers in found["splits"].items():
        letters, total = numbers["letters"], sum(numbers["letters"].values())
        balance = ", ".join(f"{letter} {count / total:.0%}" for letter, count in letters.items())
        is_open = f", {numbers['open_questions']} of them open" if numbers["open_questions"] else ""
        lines.append(
            f"{split}: {numbers['questions']} questions{is_open} about {numbers['clips']} clips, {word} count "
            f"{numbers['groups']}" + (f"; right answers {balance}" if total else "")
        )
    if found["shared_questions"]:
        lines.append(f"{found['shared_questions']} questions of the test are asked in training too, of other clips")
    if found["videos_without_questions"]:
        lines.append(f"{found['videos_without_questions']} videos have no question and are left out")
    return lines


def complaints(rejected: Sequence[Mapping[str, str]], num_rows: int) -> list[str]:
    """The first rows that were rejected, and how many there were."""
    lines = [f"{row['row']}: {row['reason']}" for row in rejected[:MAX_REJECTED_SHOWN]]
    return lines + [f"{len(rejected)} of {num_rows} rows cannot be used."] * bool(rejected)
