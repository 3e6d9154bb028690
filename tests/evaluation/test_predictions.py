"""Predictions made elsewhere are scored by the same rules, or refused by name."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from builders.refusals import sentence
from cinetune.evaluation import metrics, predictions
from cinetune.task.description import CINEPILE
from cinetune.task.questions import ClipQuestions, Question

pytestmark = pytest.mark.evaluation

CATEGORIES = list(CINEPILE.shorts)
CHOICES = ("a red hat", "a blue coat and a very long scarf", "a key", "nothing", "the map")


def make_clips(count=3, per_clip=4):
    return [
        ClipQuestions(
            f"clip{number}",
            f"Film {number} (1999)",
            "",
            tuple(
                Question(
                    f"clip{number}-{q:03d}", f"What {q}?", CHOICES, q % 5, list(CINEPILE.shorts)[q % 5], "False", "0"
                )
                for q in range(per_clip)
            ),
            1999,
            ("Drama",),
        )
        for number in range(count)
    ]


CLIPS = make_clips()
IDS = [question.question_id for clip in CLIPS for question in clip.questions]


def save(table, path):
    if path.suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        (table.to_csv if path.suffix == ".csv" else table.to_parquet)(path)
    return path


@pytest.mark.parametrize("kind", [".parquet", ".csv", ".jsonl"])
def test_words_of_another_system_are_read_by_these_parsers_in_the_order_of_the_questions(tmp_path, kind):
    words = ["Answer: A", "(B)", "None", ""] * 3
    given = pd.DataFrame({"question_id": IDS, "raw": words}).sample(frac=1, random_state=0)
    table = predictions.read(save(given, tmp_path / f"theirs{kind}"), CLIPS)
    assert table["question_id"].tolist() == IDS
    assert table["strict"].tolist() == ["A", None, None, None] * 3
    assert table["lenient"].tolist() == ["A", "B", None, None] * 3
    assert table["abstained"].tolist() == [False, False, True, False] * 3
    assert table["logit"].isna().all()
    summary = metrics.summarise(table, "theirs", "d", "test", None, 20, 0)
    assert summary["scorers"]["lenient"]["overall"]["correct"] == 6
    assert summary["scorers"]["logit"]["unparsed"] == 12


def test_what_evaluate_wrote_reads_back_as_it_was(tmp_path):
    table = predictions.baseline("random", CLIPS, 7)
    again = predictions.read(save(table, tmp_path / "ours.parquet"), CLIPS)
    pd.testing.assert_frame_equal(again, table)


def test_missing_clips_and_rotations_of_a_file_stay_what_they_are(tmp_path):
    table = pd.DataFrame({"question_id": IDS, "raw": "A", "rotation": 2, "status": "ok", "reason": ""})
    table.loc[:3, ["raw", "status", "reason"]] = ["", "missing_clip", "it is private"]
    read = predictions.read(save(table, tmp_path / "rotated.parquet"), CLIPS)
    assert read["status"].tolist() == ["missing_clip"] * 4 + ["ok"] * 8
    assert read["reason"].tolist() == ["it is private"] * 4 + [""] * 8
    assert read["gold"].tolist() == ["D", "E", "A", "B"] * 3, "A of the data stands at D, two places up"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda rows: rows.iloc[2:], ["lacks 2 of 12", "'clip0-000'", "missing_clip"]),
        (lambda rows: pd.concat([rows, rows.iloc[:1]]), ["'clip0-000'", "twice"]),
        (lambda rows: rows.assign(question_id=[*IDS[:-1], "other-000"]), ["'other-000'", "not in this split"]),
        (lambda rows: rows.drop(columns="raw"), ["'raw'"]),
        (lambda rows: rows.rename(columns={"question_id": "id"}), ["'question_id'"]),
        (lambda rows: rows.assign(raw=3), ["raw", "3", "quotes"]),
        (lambda rows: rows.assign(**dict.fromkeys(predictions.PROBABILITIES, 3.2)), ["'clip0-000'", "shares of 1"]),
        (lambda rows: rows.assign(**dict.fromkeys(predictions.PROBABILITIES, 0.1)), ["'clip0-000'", "shares of 1"]),
        (lambda rows: rows.assign(p_A=-0.1), ["'clip0-000'", "shares of 1"]),
        (lambda rows: rows.assign(rotation=7), ["rotation"]),
        (lambda rows: rows.assign(letter_mass=1.2), ["'clip0-000'", "letter_mass", "from 0 to 1"]),
    ],
)
def test_a_file_that_does_not_fit_the_questions_is_one_sentence(tmp_path, change, named):
    rows = pd.DataFrame({"question_id": IDS, "raw": ["A"] * len(IDS)})
    path = save(change(rows), tmp_path / "theirs.parquet")
    text = sentence(lambda: predictions.read(path, CLIPS))
    assert "theirs.parquet" in text and all(words in text for words in named), text


@pytest.mark.parametrize("name", ["no.parquet", "no.csv", "no.jsonl"])
def test_a_file_that_is_not_there_or_not_a_table_is_one_sentence(tmp_path, name):
    assert "does not exist" in sentence(lambda: predictions.read(tmp_path / name, CLIPS))
    (tmp_path / name).write_bytes(b"\x00\xff{{{")
    sentence(lambda: predictions.read(tmp_path / name, CLIPS))


def test_probabilities_that_are_not_numbers_are_unparsed_and_not_guessed(tmp_path):
    rows = pd.DataFrame({"question_id": IDS, "raw": "A"}).assign(**dict.fromkeys(predictions.PROBABILITIES, 0.2))
    rows.loc[0, "p_B"] = np.nan
    rows.loc[1, list(predictions.PROBABILITIES)] = np.nan
    table = predictions.read(save(rows, tmp_path / "theirs.parquet"), CLIPS)
    assert table["logit"].isna().tolist() == [True, True] + [False] * 10
    json.dumps(metrics.summarise(table, "m", "d", "test", None, 10, 0), allow_nan=False)


def test_the_longest_option_is_what_its_baseline_says():
    table = predictions.baseline("longest-option", CLIPS, 7)
    assert set(table["raw"]) == set(table["logit"]) == set(table["strict"]) == {"B"}


def test_the_random_baseline_guesses_evenly_and_each_question_by_itself():
    clips = make_clips(200, 10)
    table = predictions.baseline("random", clips, 7)
    assert (table["logit"].value_counts(normalize=True) - 0.2).abs().max() < 0.04
    assert (table["logit"] == table["lenient"]).all()
    few = predictions.baseline("random", clips[::-1][:3], 7).set_index("question_id")["logit"]
    assert (table.set_index("question_id")["logit"].loc[few.index] == few).all()
    assert (predictions.baseline("random", clips, 8)["logit"] != table["logit"]).mean() > 0.5


def test_words_about_other_questions_under_the_same_ids_are_refused(tmp_path):
    table = predictions.baseline("random", CLIPS, 1)
    assert table["question_digest"].nunique() == 4
    path = save(table, tmp_path / "own.parquet")
    assert predictions.read(path, CLIPS)["raw"].tolist() == table["raw"].tolist()
    table.loc[5, "question_digest"] = "0" * 16
    text = sentence(lambda: predictions.read(save(table, path), CLIPS))
    assert repr(IDS[5]) in text and "options" in text
