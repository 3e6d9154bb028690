"""An export is the model that it was made of, opened by plain transformers in a process of its own, or is not kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoProcessor, GenerationConfig

from builders import trainings
from builders.bases import write_real_layout
from builders.exports import CLIPS, make_source, params_of, write_tiny_base
from builders.refusals import sentence
from cinetune.export import exporting, llava, opener, proof
from cinetune.export.proof import Opened
from cinetune.export.source import Source
from cinetune.files import file_digest
from cinetune.model.packing import CLIP_DEVIATION, CLIP_MEAN, normalise
from cinetune.params import ExportParams

pytestmark = pytest.mark.serving

NUM_QUESTIONS = sum(len(clip.questions) for clip in CLIPS)


def chosen(**values: Any) -> ExportParams:
    return trainings.PARAMS.override("export", {"questions": 100} | values).export


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp("source")
    write_tiny_base(root)
    return make_source(root)


@pytest.fixture(scope="module")
def exported(source: Source, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A LLaVA, and its proof."""
    target = tmp_path_factory.mktemp("exported") / "llava"
    return target, exporting.export(source, chosen(shard_mb=1), CLIPS, trainings.frames_of, target)


def test_a_llava_answers_as_the_model_that_it_was_made_of(exported: tuple[Path, dict[str, Any]]) -> None:
    _, proven = exported
    assert proven["questions"] == proven["same_letters"] == proven["same_words"] == NUM_QUESTIONS
    assert proven["largest_difference"] <= proven["rounding_step"] < 1e-5
    assert proven["largest_difference_from_packs"] < 1e-4
    assert proven["largest_pixel_difference"] <= proof.PIXEL_ROUNDING
    assert len({answer["export"] for answer in proven["answers"]}) > 1


def test_the_folder_says_what_it_is(exported: tuple[Path, dict[str, Any]], source: Source) -> None:
    folder, proven = exported
    assert json.loads((folder / exporting.PROOF).read_text(encoding="utf-8")) == proven
    assert proven["made_from"]["adapter_digest"] == source.adapter.digest
    left = {path.name for path in folder.iterdir()} - {exporting.PROOF, exporting.CARD}
    assert proven["files"] == {name: file_digest(folder / name) for name in left}
    card = (folder / exporting.CARD).read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0\n") and source.adapter.digest in card
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        (folder / "config.json").stat().st_mode & 0o777
    }


def test_weights_are_those_of_a_llava(exported: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = exported
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert not any("image_tower" in name or "video_tower" in name or "lora" in name for name in names)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LlavaForConditionalGeneration"]
    assert config["vision_feature_select_strategy"] == "full"
    generation = GenerationConfig.from_pretrained(folder)
    assert (generation.do_sample, generation.max_new_tokens, generation.eos_token_id) == (False, 3, 2)


def test_its_processor_makes_our_pixels_of_our_frames(exported: tuple[Path, dict[str, Any]]) -> None:
    frames = trainings.frames_of("any")
    made = AutoProcessor.from_pretrained(exported[0]).image_processor(list(frames), return_tensors="pt")
    assert (made["pixel_values"] - normalise(torch.from_numpy(frames))).abs().max() <= proof.PIXEL_ROUNDING


def test_a_processor_that_rounds_otherwise_is_the_same_and_one_that_sees_otherwise_is_not(
    tmp_path: Path,
) -> None:
    """The reader of the program that opens an export, given processors of our frames."""
    frames = trainings.frames_of("any")
    ours = normalise(torch.from_numpy(frames))
    np.save(tmp_path / "0.frames.npy", frames)
    np.save(tmp_path / "0.pixels.npy", ours.numpy())
    content = [{"type": "image"} for _ in frames]
    case = {"clip": 0, "message": {"role": "user", "content": content}}

    def seen(pixels: torch.Tensor) -> float:
        made = {"input_ids": torch.zeros(1, 1, dtype=torch.int64), "pixel_values": pixels}
        processor = SimpleNamespace(apply_chat_template=lambda *_, **options: made)
        inputs, difference = opener.chat_reader(processor, tmp_path)(case)
        assert torch.equal(inputs["pixel_values"], ours), "logits are of weights alone"
        return difference

    def check(pixels: torch.Tensor) -> None:
        logits = np.zeros((1, 4), dtype=np.float32)
        proof.check(logits, opened(logits, seen(pixels)), torch.float32)

    def of(levels: np.ndarray, mean: Sequence[float] = CLIP_MEAN) -> torch.Tensor:
        """As transformers does with torchvision: mean and deviation are multiplied, and nothing is divided by 255."""
        centre, width = (torch.tensor(values) * 255 for values in (mean, CLIP_DEVIATION))
        return ((torch.from_numpy(levels).float() - centre) / width).movedim(-1, -3)

    assert 0 < seen(of(frames)) < proof.PIXEL_ROUNDING
    check(of(frames))
    another = frames.copy()
    another[-1, 0, 0, 2] ^= 1
    missing = of(frames)
    missing[0, 0, 0, 0] = torch.nan
    for wrong in (of(another), of(frames, [0.5, 0.5, 0.5]), of(frames[:, ::-1].copy()), missing):
        assert "pixels differ" in sentence(lambda wrong=wrong: check(wrong))


def test_an_export_that_answers_otherwise_is_not_kept(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def otherwise(folder: Path, *_: Any) -> Opened:
        assert (folder / "config.json").is_file()
        return opened(np.zeros((NUM_QUESTIONS, 1)))

    monkeypatch.setattr(proof, "open_export", otherwise)
    told = sentence(lambda: exporting.export(source, chosen(), CLIPS, trainings.frames_of, tmp_path / "llava"))
    assert "rounding step" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_export_that_is_asked_with_other_tokens_is_not_kept(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llava, "SELECTION", "default")
    told = sentence(lambda: exporting.export(source, chosen(), CLIPS, trainings.frames_of, tmp_path / "llava"))
    assert "other tokens" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("to", ["merged", "adapter"])
def test_other_kinds_are_proven_alike(to: str, source: Source, tmp_path: Path) -> None:
    proven = exporting.export(source, chosen(to=to), CLIPS, trainings.frames_of, tmp_path / to)
    assert proven["same_letters"] == proven["same_words"] == NUM_QUESTIONS
    assert proven["largest_difference"] <= proven["rounding_step"]
    names = {path.name for path in (tmp_path / to).iterdir()}
    assert ("adapter_model.safetensors" in names) == (to == "adapter")
    assert ("model.safetensors" in names) == (to == "merged")


@pytest.mark.slow
@pytest.mark.parametrize("to", ["llava", "merged", "adapter"])
def test_in_bfloat16_too_an_export_is_within_one_rounding_step(to: str, source: Source, tmp_path: Path) -> None:
    params = source.params.override("model", {"dtype": "bfloat16"})
    half = Source(source.adapter, params, source.base, source.licence)
    proven = exporting.export(half, chosen(to=to), CLIPS, trainings.frames_of, tmp_path / to)
    assert (proven["dtype"], proven["questions"]) == ("bfloat16", NUM_QUESTIONS)
    assert proven["largest_difference"] <= proven["rounding_step"] <= 0.01 * proven["largest_logit"]


@pytest.mark.slow
def test_a_model_served_in_four_bits_is_exported_with_whole_weights(source: Source, tmp_path: Path) -> None:
    params = source.params.override("model", {"quantization": "nf4", "dtype": "bfloat16"})
    quantised = Source(source.adapter, params, source.base, source.licence)
    proven = exporting.export(quantised, chosen(), CLIPS, trainings.frames_of, tmp_path / "llava")
    assert proven["served_quantization"] == "nf4" and proven["largest_difference"] <= proven["rounding_step"]
    with safe_open(next((tmp_path / "llava").glob("*.safetensors")), "pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert kinds == {"BF16"}


@pytest.mark.slow
def test_a_base_in_the_layout_of_the_real_one_is_exported(tmp_path: Path) -> None:
    write_real_layout(tmp_path / "base-model")
    sized = params_of(tmp_path).override("frames", {"size": 224})
    assert sized.frames.num_frames == trainings.NUM_FRAMES
    made = make_source(tmp_path)
    source = Source(made.adapter, sized, made.base, made.licence)

    def frames_of(clip_id: str) -> np.ndarray:
        rng = np.random.default_rng(list(clip_id.encode()))
        return rng.integers(0, 256, (trainings.NUM_FRAMES, 224, 224, 3), dtype=np.uint8)

    proven = exporting.export(source, chosen(shard_mb=4), CLIPS, frames_of, tmp_path / "llava")
    assert len(list((tmp_path / "llava").glob("model-*.safetensors"))) > 1
    assert proven["same_letters"] == NUM_QUESTIONS and proven["largest_difference"] <= proven["rounding_step"]


# ---- what is refused


def opened(logits: np.ndarray, pixel_difference: float = 0.0) -> Opened:
    return Opened(logits, [], pixel_difference, {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_more_than_one_rounding_step_is_refused(dtype: torch.dtype) -> None:
    ours = np.array([[16.0, -3.0], [0.5, 2.0]], dtype=np.float32)
    step = proof.rounding_step(ours, dtype)
    assert step == 16 * torch.finfo(dtype).eps
    proof.check(ours, opened(ours + np.array([[0, step], [0, 0]], dtype=np.float32)), dtype)
    for wrong in (3 * step, np.nan, np.inf):
        other = ours + np.array([[0, 0], [0, wrong]], dtype=np.float32)
        assert "rounding step" in sentence(lambda other=other: proof.check(ours, opened(other), dtype))
    assert "pixels" in sentence(lambda: proof.check(ours, opened(ours, 0.01), dtype))


def test_a_merge_that_changes_answers_is_refused() -> None:
    served = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
    proof.check_merged(served, served * (1 + 1e-6), torch.float32)
    proof.check_merged(served, served * 1.01, torch.bfloat16)
    for merged in (served * 1.01, served * np.nan):
        assert "export.to=adapter" in sentence(lambda merged=merged: proof.check_merged(served, merged, torch.float32))


def test_a_folder_that_is_no_export_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert exporting.target_of(chosen(to="merged")) == Path("outputs/export/merged")
    mine = tmp_path / "mine"
    mine.mkdir()
    assert exporting.target_of(chosen(out=str(mine))) == mine
    (mine / "thesis.txt").write_text("years of work", encoding="utf-8")
    assert "is no export" in sentence(lambda: exporting.target_of(chosen(out=str(mine))))
    assert "is no export" in sentence(lambda: exporting.target_of(chosen(out=str(mine / "thesis.txt"))))
    (mine / exporting.PROOF).write_text("{}", encoding="utf-8")
    assert exporting.target_of(chosen(out=str(mine))) == mine


def test_questions_are_taken_of_as_many_clips_as_there_are() -> None:
    cases = proof.choose_cases(CLIPS, 3, trainings.frames_of)
    assert [len(case.questions) for case in cases] == [2, 1]
    assert [len(case.questions) for case in proof.choose_cases(CLIPS, 1, trainings.frames_of)] == [1]
    assert [len(case.questions) for case in proof.choose_cases(CLIPS, 99, trainings.frames_of)] == [3, 2]
