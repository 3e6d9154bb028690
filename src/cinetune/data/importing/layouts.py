"""Question files as others publish them, in the plain columns.

nextqa: CSV with video, question, answer, type and a0 to a4, of NExT-QA; NExT-GQA has the answer's text.
egoschema: questions.json with q_uid, question and "option 0" to "option 4", beside it subset_answers.json with the
answers that are public; or rows with video_idx, a list `option` and an answer, as the hub has them.
mvbench: a JSON list with video, question, candidates and answer, and start and end in some; its name is the category.
video_mme: Parquet with videoID, question, options ("A. ..."), answer and task_type.
tvqa: JSON lines with vid_name, q, a0 to a4 and answer_idx; beside it tvqa_subtitles/<vid_name>.srt, where it is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cinetune.data import subtitles
from cinetune.data.importing.records import WHOLE, is_list, number_text
from cinetune.data.sources.formats import Row
from cinetune.data.sources.rows import READERS as FORMATS
from cinetune.errors import InputError
from cinetune.files import read_json
from cinetune.task import clip_ids
from cinetune.task.description import LETTERS

NUM_OPTIONS = 5
ANSWERS = "subset_answers.json"
LETTERED = re.compile(r"\(?[A-J][.):]\s*")
Convert = Callable[[Path, Mapping[str, Any]], Mapping[str, Any]]


def _nextqa(path: Path, row: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = [row[f"a{place}"] for place in range(NUM_OPTIONS)]
    return _plain(row["video"], row["question"], choices, row["answer"], category=row.get("type"))


def _egoschema(path: Path, row: Mapping[str, Any], answers: Mapping[str, Any]) -> Mapping[str, Any]:
    if "option" in row:
        return _plain(row["video_idx"], row["question"], row["option"], row.get("answer"))
    choices, name = [row[f"option {place}"] for place in range(NUM_OPTIONS)], row["q_uid"]
    answer = answers.get(name) if isinstance(name, str) else None
    return _plain(name, row["question"], choices, row.get("answer") if answer is None else answer)


def _mvbench(path: Path, row: Mapping[str, Any]) -> Mapping[str, Any]:
    plain = {"video": row["video"], "question": row["question"], "choices": row["candidates"], "answer": row["answer"]}
    return plain | {"category": path.stem, "start": row.get("start"), "end": row.get("end")}


def _video_mme(path: Path, row: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = row["options"]
    if is_list(choices):
        choices = [LETTERED.sub("", text, count=1) if isinstance(text, str) else text for text in choices]
    answer = str(row["answer"]).strip()
    place = LETTERS.find(answer) if len(answer) == 1 else -1
    return _plain(row["videoID"], row["question"], choices, place, category=row.get("task_type"))


def _tvqa(path: Path, row: Mapping[str, Any]) -> Mapping[str, Any]:
    name = row["vid_name"]
    choices = [row[f"a{place}"] for place in range(NUM_OPTIONS)]
    spoken = path.parent / "tvqa_subtitles" / f"{name}.srt"
    is_there = isinstance(name, str) and clip_ids.check(name) is None and spoken.is_file()
    words = subtitles.read_file(spoken, 0.0, float("inf")) if is_there else ""
    return _plain(name, row["q"], choices, row.get("answer_idx"), subtitles=words)


def _plain(video: Any, question: Any, choices: Any, answer: Any, **more: Any) -> Mapping[str, Any]:
    """The answer's index becomes its text: an option's text may be another option's index."""
    whole = WHOLE.fullmatch(answer.strip() if isinstance(answer, str) else number_text(answer) or "")
    is_place = whole is not None and is_list(choices) and 0 <= int(whole[1]) < len(choices)
    named = choices[int(whole[1])] if whole and is_place else answer
    return {"video": video, "question": question, "choices": choices, "answer": named} | more


def _rows(path: Path, convert: Convert) -> Iterator[Row]:
    for row in FORMATS[path.suffix.lower()](path):
        if isinstance(row, str):
            yield row
            continue
        try:
            yield convert(path, row)
        except KeyError as error:
            yield f"column {error.args[0]!r} is missing"
        except InputError as error:
            yield str(error)


def _reader(convert: Convert) -> Callable[[Path], Iterator[Row]]:
    return partial(_rows, convert=convert)


def _egoschema_rows(path: Path) -> Iterator[Row]:
    beside = path.with_name(ANSWERS)
    answers = read_json(beside) if beside.is_file() else {}
    if not isinstance(answers, dict):
        raise InputError(f"{str(beside)!r} holds no answers by q_uid: fetch it again.")
    return _rows(path, partial(_egoschema, answers=answers))


READERS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    "nextqa": _reader(_nextqa),
    "egoschema": _egoschema_rows,
    "mvbench": _reader(_mvbench),
    "video_mme": _reader(_video_mme),
    "tvqa": _reader(_tvqa),
}
