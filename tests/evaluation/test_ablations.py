"""Ablations by name."""

import numpy as np
import pytest

from builders.projects import ROOT
from builders.refusals import sentence
from cinetune import params as params_module
from cinetune.evaluation import ablations
from cinetune.task.description import CINEPILE

pytestmark = pytest.mark.evaluation


ALL = ablations.of_task(CINEPILE)


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


def test_what_is_shown_under_each_ablation():
    frames = np.arange(8, dtype=np.uint8)[:, None, None, None] + np.ones((8, 2, 2, 3), dtype=np.uint8)
    assert ablations.show("none", "a", "words", frames) == ("words", frames)
    words, black = ablations.show("neither", "a", "words", frames)
    assert words == "" and black.shape == frames.shape and not black.any()
    _, one = ablations.show("one_frame", "a", "words", frames)
    assert one.shape == frames.shape and (one == frames[4]).all()
    _, shuffled = ablations.show("shuffled", "a", "words", frames)
    assert sorted(shuffled[:, 0, 0, 0]) == sorted(frames[:, 0, 0, 0])
    assert (ablations.show("shuffled", "a", "", frames)[1] == shuffled).all(), "the same clip, the same order"
    for number in range(200):
        two = ablations.show("shuffled", f"clip{number}", "", frames[:2])[1]
        assert (two == frames[1::-1]).all(), "never the true order"
    assert (ablations.show("shuffled", "a", "", frames[:1])[1] == frames[:1]).all()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("none", ()),
        ("", ()),
        ("all", ALL[1:]),
        ("shuffled no_frames", ("no_frames", "shuffled")),
        ("shuffled,no_frames,shuffled", ("no_frames", "shuffled")),
    ],
)
def test_ablations_are_read_by_name(text, names):
    assert ablations.read_names(text) == names


@pytest.mark.parametrize("text", ["all no_frames", "no_sound", "none shuffled"])
def test_an_unknown_ablation_is_refused_by_name(text):
    assert "no_subtitles" in sentence(lambda: ablations.read_names(text))


def test_the_pipeline_takes_no_prompt_that_dvc_does_not_know() -> None:
    chosen = params_module.load(ROOT / "params.yaml").override("evaluate", {"model": "base", "prompt": "p.json"})
    assert "a file that DVC does not know" in sentence(lambda: ablations.names_of(chosen.evaluate, is_pipeline=True))
    assert ablations.names_of(chosen.evaluate) == ("none",)
