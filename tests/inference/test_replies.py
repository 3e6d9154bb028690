"""An evaluation under any ablations, in any order, after any stop, gives the same predictions."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from builders.packs import SUBTITLES, make_clips, make_tiny
from builders.projects import ROOT, environment
from builders.refusals import sentence
from cinetune.evaluation import ablations, metrics, predictions
from cinetune.evaluation.paired import compare
from cinetune.inference import replies
from cinetune.inference.journal import Journal
from cinetune.inference.replies import Share, collect, reply_to_clip, reply_to_clips
from cinetune.task.description import CINEPILE

pytestmark = pytest.mark.evaluation

PLAIN = ("none",)
ALL = ablations.of_task(CINEPILE)
ROTATIONS = tuple(name for name in ALL if name in ablations.ROTATIONS)
SHARES = [f"p_{letter}" for letter in CINEPILE.letters]


@pytest.fixture(scope="module")
def tiny():
    return make_tiny(0)


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


def evaluate(model, encoder, clips, frames, names, folder, *, pack=2, share=None, tokens=4):
    """Predictions by ablation, through a journal in `folder`."""
    with Journal(folder) as journal:
        options = {"questions_per_pack": pack, "max_new_tokens": tokens}
        reply_to_clips(model, encoder, clips, lambda _: frames, names, journal, share or Share(), **options)
        return collect(clips, journal.read(), {}, names)


def shares_of(model, encoder, clip, frames, name):
    given = reply_to_clip(model, encoder, clip, frames, (name,), 8, 1)[name]
    return np.array([probabilities for _, probabilities, _ in given])


def test_predictions_are_what_metrics_need_and_survive_parquet(tiny, frames, tmp_path):
    here, gone = make_clips()
    given = {here.clip_id: reply_to_clip(*tiny, here, frames, PLAIN, 2, 4)}
    table = collect([here, gone], given, {gone.clip_id: "it is private"}, PLAIN)["none"]
    assert list(table.columns) == list(predictions.columns_of(CINEPILE))
    assert table["question_id"].tolist() == [q.question_id for clip in (here, gone) for q in clip.questions]
    assert table["gold"].tolist() == ["A", "B", "C"] * 2
    assert table["status"].tolist() == ["ok"] * 3 + ["missing_clip"] * 3
    assert table["reason"].tolist() == [""] * 3 + ["it is private"] * 3
    missing = table.iloc[3:]
    assert (missing["raw"] == "").all() and missing[SHARES].isna().all(axis=None)
    assert all(value is None for name in metrics.SCORERS for value in missing[name])
    best = table.iloc[:3][SHARES].to_numpy().argmax(1)
    assert table["logit"].tolist()[:3] == [CINEPILE.letters[i] for i in best]

    table.to_parquet(tmp_path / "predictions.parquet")
    again = pd.read_parquet(tmp_path / "predictions.parquet")
    first, second = (metrics.summarise(t, "m", "d", "test", None, 50, 0) for t in (table, again))
    assert first == second and first["clips_missing"] == 1 and first["questions_missing"] == 3
    assert first["missing"] == [{"clip_id": "clip1", "questions": 3, "reason": "it is private"}]
    stored = pyarrow.parquet.read_table(tmp_path / "predictions.parquet")
    assert all(stored[name].to_pylist() == table[name].tolist() for name in metrics.SCORERS)


def test_pieces_of_a_clip_give_the_numbers_of_the_whole(tiny, frames):
    (clip,) = make_clips(1)
    whole, split = (reply_to_clip(*tiny, clip, frames, PLAIN, size, 4)["none"] for size in (32, 1))
    assert [raw for raw, *_ in whole] == [raw for raw, *_ in split]
    np.testing.assert_allclose([[*p, mass] for _, p, mass in whole], [[*p, mass] for _, p, mass in split], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "sees_frames", "sees_subtitles"),
    [
        ("none", True, True),
        ("no_frames", False, True),
        ("no_subtitles", True, False),
        ("neither", False, False),
        ("one_frame", True, True),
        ("shuffled", True, True),
        ("rotation_3", True, True),
    ],
)
def test_an_ablation_withholds_what_it_says_and_nothing_else(tiny, frames, name, sees_frames, sees_subtitles):
    def shares(frames, subtitles):
        return shares_of(*tiny, dataclasses.replace(make_clips(1)[0], subtitles=subtitles), frames, name)

    before = shares(frames, SUBTITLES)
    assert (np.abs(shares(255 - frames, SUBTITLES) - before).max() > 1e-6) == sees_frames
    assert (np.abs(shares(frames, "<subtitle> Nobody is here.") - before).max() > 1e-6) == sees_subtitles


def test_a_rotation_moves_every_option_and_the_gold_letter_with_it(tiny, frames, tmp_path):
    clips = make_clips(1)
    tables = evaluate(*tiny, clips, frames, ("none", *ROTATIONS), tmp_path)
    for places, name in enumerate(("none", *ROTATIONS)):
        asked = dataclasses.replace(
            clips[0],
            questions=tuple(
                dataclasses.replace(
                    q, choices=(*q.choices[places:], *q.choices[:places]), answer=(q.answer - places) % 5
                )
                for q in clips[0].questions
            ),
        )
        by_hand = evaluate(*tiny, [asked], frames, PLAIN, tmp_path / name)["none"]
        # The digest is of the options in the data's order, which was moved by hand there.
        other = ["rotation", "question_digest"]
        pd.testing.assert_frame_equal(tables[name].drop(columns=other), by_hand.drop(columns=other))
        assert (tables[name]["rotation"] == places).all()
    assert compare(tables["none"], tables["rotation_2"], "logit", 10, 0)["overall"]["n"] == 3


def test_ablations_together_give_what_each_gives_alone(tiny, frames, tmp_path):
    clips = make_clips(1)
    together = evaluate(*tiny, clips, frames, ALL, tmp_path / "all")
    assert tuple(together) == ALL
    for name in ALL:
        alone = evaluate(*tiny, clips, frames, (name,), tmp_path / name)[name]
        pd.testing.assert_frame_equal(together[name], alone)


def test_rotations_share_one_reading_of_the_clip(tiny, frames, monkeypatch):
    readings = []
    real = replies.read
    monkeypatch.setattr(replies, "read", lambda *words: readings.append(1) or real(*words))
    reply_to_clip(*tiny, make_clips(1)[0], frames, ALL, 8, 1)
    assert len(readings) == 6, "as shown, and five ways of showing less"


def test_a_stopped_evaluation_goes_on_and_ends_alike(tiny, frames, tmp_path):
    clips = make_clips(3)
    whole = evaluate(*tiny, clips, frames, ("none", "shuffled"), tmp_path / "whole")
    evaluate(*tiny, clips[:2], frames, ("none", "shuffled"), tmp_path / "parts")
    journal = tmp_path / "parts" / "part-00000.jsonl"
    torn = journal.read_bytes()[:-20]
    journal.write_bytes(torn)
    asked = []

    def frames_of(clip_id):
        asked.append(clip_id)
        return frames

    names = ("none", "shuffled")
    with Journal(tmp_path / "parts") as again:
        options = {"questions_per_pack": 2, "max_new_tokens": 4}
        reply_to_clips(*tiny, clips, frames_of, names, again, Share(), **options)
        parts = collect(clips, again.read(), {}, names)
        again.remove()
    assert asked == ["clip1", "clip2"], "the clip whose line was cut off, and the one that was never begun"
    for name in names:
        pd.testing.assert_frame_equal(whole[name], parts[name])
    assert not (tmp_path / "parts").exists()


@pytest.mark.parametrize("processes", [2, 3])
def test_shares_add_up_to_the_whole_in_any_order(tiny, frames, tmp_path, processes):
    clips = make_clips(5)
    whole = evaluate(*tiny, clips, frames, PLAIN, tmp_path / "whole")["none"]
    for rank in reversed(range(processes)):
        with Journal(tmp_path / "shared", rank) as journal:
            options = {"questions_per_pack": 2, "max_new_tokens": 4}
            reply_to_clips(*tiny, clips, lambda _: frames, PLAIN, journal, Share(rank, processes), **options)
            given = journal.read()
        if rank:
            assert "ended early" in sentence(lambda given=given: collect(clips, given, {}, PLAIN))
    pd.testing.assert_frame_equal(collect(clips, given, {}, PLAIN)["none"], whole)


@pytest.mark.slow
@pytest.mark.nightly
def test_sharing_and_statistics_are_as_fast_as_promised():
    """Five rotations cost at most five plain passes, and a third of asking one by one."""
    command = [sys.executable, "benchmarks/evaluation.py", "--clips", "1", "--rounds", "3"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])["figures"]
    assert figures["rotations_over_plain"] <= 5 and figures["separate_over_rotations"] >= 3
    assert figures["rotations_tokens_over_plain"] <= 4 and figures["separate_tokens_over_plain"] > 58
    assert figures["statistics_and_report_s"] < 10
