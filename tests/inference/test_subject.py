"""One flipped bit in whatever decides predictions or a training makes another evaluation, training and version."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tqdm import tqdm

from builders.projects import ROOT
from builders.refusals import sentence
from cinetune import files, pipeline, provenance
from cinetune import params as params_module
from cinetune.artifacts import Adapter, Evaluation
from cinetune.experiments import sweeps
from cinetune.frames import executors
from cinetune.frames.encoding import encode
from cinetune.frames.sampling import FrameSettings
from cinetune.frames.store import FrameStore
from cinetune.inference import subject
from cinetune.inference.subject import Subject
from cinetune.params import Params
from cinetune.runtime import checkpoints
from cinetune.task import prompts
from cinetune.task.description import CINEPILE
from cinetune.training import session

pytestmark = pytest.mark.evaluation

SMALL = {"policy": "uniform", "num_frames": 2, "size": 16, "workers": 1}
CHOICES = ["a key", "a rope", "a lamp", "a map", "a ring"]


@dataclass(frozen=True)
class Inputs:
    """All that an evaluation and a training read, in one folder."""

    root: Path
    params: Params
    adapter: Adapter

    @property
    def frames(self) -> Path:
        return self.root / "frames"

    def decode(self) -> None:
        clip_ids = [f"clip{number}" for number in range(3)]
        frames, bar = self.params.frames, tqdm(disable=True)
        executors.decode_missing(frames, self.root / "data/clips", clip_ids, self.frames, lambda total: bar)

    def identities(self) -> list[Any]:
        """Of the evaluation's files, its journal, the training's checkpoints and the version."""
        made_from = subject.made_from(Subject("m", "m", self.adapter), self.params, self.frames)
        made_by = session.identity(self.params, session.Inputs.read(self.params, self.open_frames), self.frames)
        evaluation = Evaluation("m", pd.DataFrame(), {}, made_from)
        origin = pipeline.origin_of(self.params, self.adapter, evaluation, "0")
        return [made_from, subject.digest_of(made_from, ["none"], self.params, "cpu"), made_by, origin]

    def open_frames(self, params: Params) -> FrameStore:
        return FrameStore.open(self.frames, FrameSettings.of(params.frames))


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inputs:
    monkeypatch.setattr(files, "DIGESTS", tmp_path / "digests.sqlite")
    monkeypatch.setattr(files, "SETTLED_NS", 0)
    # Where a stage is run.
    monkeypatch.chdir(ROOT)
    for folder in ("base", "adapter", "data/clips", "data/questions"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "base/config.json").write_text('{"model_type": "video_llava"}')
    (tmp_path / "base/model.safetensors").write_bytes(bytes(3 << 20))
    (tmp_path / "base/tokenizer.json").write_text('{"model": "words"}')
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "adapter" / name).write_bytes(b"{}")
    rows = []
    for number in range(3):
        images = np.random.default_rng(number).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
        encode(tmp_path / f"data/clips/clip{number}.mp4", images, 4)
        rows.append(row(number))
    for split in ("train", "test"):
        pd.DataFrame(rows).to_parquet(tmp_path / f"data/questions/{split}.parquet")
    params = params_module.load(ROOT / "params.yaml").override("frames", SMALL)
    params = params.override("data", {"root": str(tmp_path / "data")})
    params = params.override("model", {"base": str(tmp_path / "base")})
    made = Inputs(tmp_path, params, Adapter.open(tmp_path / "adapter"))
    made.decode()
    return made


def row(number: int) -> dict[str, Any]:
    known = dict.fromkeys(CINEPILE.columns.values(), "")
    return known | {
        "clip_id": f"clip{number}",
        "movie_name": f"Film {number}",
        "year": 2001,
        "genre": ["Drama"],
        "subtitles": "<subtitle> Take the key.",
        "question": "What is it?",
        "choices": CHOICES,
        "answer_key": CHOICES[0],
        "answer_key_position": 0,
        "question_category": "Temporal",
        "visual_reliance": 0,
        "hard_split": "False",
    }


def flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def a_clip(inputs: Inputs, _: pytest.MonkeyPatch) -> None:
    clip = inputs.root / "data/clips/clip1.mp4"
    # In the name of the track, which no picture shows.
    flip(clip, clip.read_bytes().rindex(b"VideoHandler"))
    inputs.decode()


def a_frame_shard(inputs: Inputs, _: pytest.MonkeyPatch) -> None:
    flip(inputs.frames / "shard-00000.safetensors")


def the_weights(inputs: Inputs, _: pytest.MonkeyPatch) -> None:
    flip(inputs.root / "base/model.safetensors")


def the_tokenizer(inputs: Inputs, _: pytest.MonkeyPatch) -> None:
    path = inputs.root / "base/tokenizer.json"
    path.write_text(json.dumps({"model": "wordt"}))


def a_question(inputs: Inputs, _: pytest.MonkeyPatch) -> None:
    rewrite(inputs, lambda row: row | {"question": "What is iu?"})


def an_option(inputs: Inputs, _: pytest.MonkeyPatch) -> None:
    rewrite(inputs, lambda row: row | {"choices": [*CHOICES[:4], "a rinf"]})


def rewrite(inputs: Inputs, changed: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    rows = [row(0), changed(row(1)), row(2)]
    for split in ("train", "test"):
        pd.DataFrame(rows).to_parquet(inputs.root / f"data/questions/{split}.parquet")


def the_template(_: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "REMINDER", prompts.REMINDER[:-1] + "/")


@pytest.mark.parametrize(
    "change", [a_clip, a_frame_shard, the_weights, the_tokenizer, a_question, an_option, the_template]
)
def test_one_flipped_bit_changes_every_identity(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch, change: Callable[[Inputs, pytest.MonkeyPatch], None]
) -> None:
    before = inputs.identities()
    assert inputs.identities() == before
    change(inputs, monkeypatch)
    made_from, journal, made_by, tags = inputs.identities()
    assert made_from != before[0] and journal != before[1] and tags != before[3]
    # Code may have been repaired before a training is resumed; nothing else.
    assert checkpoints.first_difference(made_by, before[2], may_differ=["code"]) is not None


def test_nothing_is_said_of_what_no_model_looked_at(inputs: Inputs) -> None:
    params = inputs.params.override("model", {"base": "nowhere"})
    made_from = subject.made_from(Subject("random", "", is_baseline=True), params, inputs.frames)
    read = {name for name, value in made_from.items() if name.endswith("_digest") and value}
    assert read == {"questions_digest"}


def test_the_prompt_s_code_is_known_beside_its_text(tmp_path: Path) -> None:
    source = Path(provenance.__file__).parent
    for name in ("task/prompts.py", "task/template.py", "model/encoder.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((source / name).read_bytes())
    before = provenance.prompt_code_digest()
    assert provenance.prompt_code_digest(tmp_path) == before
    flip(tmp_path / "model/encoder.py")
    assert provenance.prompt_code_digest(tmp_path) != before


def test_an_adapter_that_says_nothing_of_its_prompt_is_noted(inputs: Inputs) -> None:
    saved = inputs.adapter.folder / "prompt.json"
    saved.write_text(json.dumps(prompts.template()))
    assert Subject("m", "m", inputs.adapter).notes == {} == Subject("base", "base").notes
    saved.unlink()
    [note] = Subject("m", "m", Adapter.open(inputs.adapter.folder, "theirs")).notes.values()
    assert "'theirs'" in note and "this project's" in note
    # A description of its task may say it too.
    (inputs.adapter.folder / "task.yaml").write_text(json.dumps({"max_choices": 5, "prompt": THEIRS}))
    assert Subject("m", "m", Adapter.open(inputs.adapter.folder, "theirs")).notes == {}


# ---- a prompt in other words

THEIRS = {
    "prefix": "USER: <video>\n{subtitles}\n",
    "suffix": "{question}\n" + "".join(f"{letter}: {{option {letter}}}\n" for letter in "ABCDE") + "ASSISTANT:",
    "open_suffix": "{question}\nASSISTANT:",
}


def asked_with(inputs: Inputs, prompt: str | Path, model: str | Path = "", allow: str = "") -> tuple[Subject, Params]:
    chosen = {"model": str(model or inputs.root / "adapter"), "prompt": str(prompt), "allow": allow}
    params = inputs.params.override("evaluate", chosen)
    return subject.resolve(params, ["none"], inputs.root / "adapter", Path), params


def written(inputs: Inputs, content: Any = THEIRS) -> Path:
    files.write_json(inputs.root / "theirs.json", content)
    return inputs.root / "theirs.json"


@pytest.mark.parametrize("model", ["", "base", "openai:http://127.0.0.1:1/v1#m"])
def test_a_given_prompt_is_asked_with_recorded_and_part_of_every_identity(inputs: Inputs, model: str) -> None:
    given, params = asked_with(inputs, written(inputs), model)
    plain, usual = asked_with(inputs, "", model)
    assert given.notes == {"prompt": THEIRS} and "prompt" not in plain.notes
    assert prompts.template(given.task(params)) == THEIRS and plain.task(usual) == CINEPILE
    made, before = (subject.made_from(*one, inputs.frames) for one in ((given, params), (plain, usual)))
    assert made["prompt_hash"] == prompts.template_hash(given.task(params)) != before["prompt_hash"]
    assert subject.digest_of(made, ["none"], params, "cpu") != subject.digest_of(before, ["none"], usual, "cpu")


def test_another_prompt_than_an_adapter_s_own_is_refused_unless_it_is_wanted(inputs: Inputs) -> None:
    own = inputs.adapter.folder / "prompt.json"
    files.write_json(own, prompts.template())
    said = sentence(lambda: asked_with(inputs, written(inputs)))
    assert "trained with another prompt than that in" in said and "theirs.json" in said and "allow=settings" in said
    given, params = asked_with(inputs, written(inputs), allow="settings")
    assert prompts.template(given.task(params)) == THEIRS
    # The same words twice are no contradiction.
    files.write_json(own, THEIRS)
    assert asked_with(inputs, written(inputs))[0].notes == {"prompt": THEIRS}


def test_an_adapter_is_asked_in_its_own_words(inputs: Inputs) -> None:
    """And so it is served: its task has them."""
    given, params = asked_with(inputs, written(inputs))
    made = subject.made_from(given, params, inputs.frames)
    before = inputs.adapter.digest
    evaluation = Evaluation("m", pd.DataFrame(), {"ablation": None}, made | {"adapter_digest": before})
    bare = Adapter.open(inputs.adapter.folder)
    served = {"prompt_hash": prompts.template_hash(bare.task)}
    assert "as prompt.json" in sentence(lambda: evaluation.check_of(bare, params, served))
    files.write_json(inputs.adapter.folder / "prompt.json", THEIRS)
    own, usual = asked_with(inputs, "")
    assert own.adapter is not None and own.notes == {}
    assert prompts.template(own.task(usual)) == prompts.template(own.adapter.task) == THEIRS
    made = subject.made_from(own, usual, inputs.frames)
    served = {"prompt_hash": prompts.template_hash(own.adapter.task)}
    Evaluation("m", pd.DataFrame(), {"ablation": None}, made).check_of(own.adapter, usual, served)
    origin = pipeline.origin_of(usual, own.adapter, Evaluation("m", pd.DataFrame(), {}, made), "0")
    assert origin["prompt.hash"] == made["prompt_hash"]


def test_a_prompt_that_nobody_can_be_asked_with_is_refused(inputs: Inputs) -> None:
    assert "there is no prompt template 'seed'" in sentence(lambda: asked_with(inputs, "seed"))
    for model in ("random", "some.csv"):
        assert "is asked nothing" in sentence(lambda model=model: asked_with(inputs, written(inputs), model))
    path = written(inputs, THEIRS | {"prefix": "USER: Look.\n"})
    said = sentence(lambda: asked_with(inputs, path))
    assert str(path) in said and "one place for the video" in said


# ---- a base from the hub


def trained_on(inputs: Inputs, **base: str) -> Adapter:
    files.write_json(inputs.adapter.folder / "training.json", {"base": base})
    return Adapter.open(inputs.adapter.folder)


def test_an_adapter_is_not_evaluated_on_a_base_that_has_changed_since(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name and revision are the same where the hub has moved on."""
    now = {"base": "b2", "tokenizer": "t", "commit": "c2"}
    monkeypatch.setattr(subject, "measure_base", lambda _: now)
    found = subject.made_from(Subject("m", "m", inputs.adapter), inputs.params, inputs.frames)
    assert found["base_commit"] == "c2" and found["base_digest"] == "b2"
    moved = trained_on(inputs, base="b1", tokenizer="t", commit="c1")
    said = sentence(lambda: subject.made_from(Subject("m", "m", moved), inputs.params, inputs.frames))
    assert "c1" in said and "c2" in said and "model.revision" in said
    allowed = inputs.params.override("evaluate", {"allow": "settings"})
    assert subject.made_from(Subject("m", "m", moved), allowed, inputs.frames)["base_digest"] == "b2"
    # A commit that changes a README makes no other base.
    same = trained_on(inputs, base="b2", tokenizer="t", commit="c1")
    assert subject.made_from(Subject("m", "m", same), inputs.params, inputs.frames)["base_commit"] == "c2"
    origin = pipeline.origin_of(inputs.params, same, Evaluation("m", pd.DataFrame(), {}, found), "0")
    assert origin["base_revision"] == "c1"


def test_a_folder_with_questions_for_validation_is_validated_on_all_of_them_and_trained_on_none(inputs: Inputs) -> None:
    asked = inputs.root / "data/questions"
    drawn = session.Inputs.read(inputs.params, inputs.open_frames)
    assert (len(drawn.training_clips), len(drawn.validation_clips)) == (2, 1)
    pd.DataFrame([row(2)]).to_parquet(asked / "validation.parquet")
    pd.DataFrame([row(0), row(1)]).to_parquet(asked / "train.parquet")
    given = session.Inputs.read(inputs.params, inputs.open_frames)
    assert [clip.clip_id for clip in given.training_clips] == ["clip0", "clip1"]
    assert [clip.clip_id for clip in given.validation_clips] == ["clip2"] and given.clips_missing == 0
    # Another division of the same questions is another training, and another part of a sweep.
    made_by, settings = session.identity(inputs.params, given, inputs.frames), sweeps.settings_of(inputs.params)
    pd.DataFrame([row(1)]).to_parquet(asked / "validation.parquet")
    pd.DataFrame([row(0), row(2)]).to_parquet(asked / "train.parquet")
    other = session.Inputs.read(inputs.params, inputs.open_frames)
    assert session.identity(inputs.params, other, inputs.frames)["the questions"] != made_by["the questions"]
    assert sweeps.settings_of(inputs.params)["the questions"] != settings["the questions"]


def test_a_training_says_which_commit_of_an_unpinned_base_it_takes(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(session, "measure_base", lambda _: {"base": "b", "tokenizer": "t", "commit": "c1"})
    session.Inputs.read(inputs.params, inputs.open_frames)
    assert "c1" in caplog.text and "model.revision" in caplog.text
    caplog.clear()
    session.Inputs.read(inputs.params.override("model", {"revision": "c1"}), inputs.open_frames)
    assert "c1" not in caplog.text
