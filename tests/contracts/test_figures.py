"""One figure, one place: estimates that documents and recipes quote follow from what was measured and from defaults.

Measurements stand in docs/scaling.md (of a clip) and in docs/performance.md's tables (of the 7B on one H100); the rest
is computed here as the commands compute it. How long a training takes is held to `--dry-run` in test_recipes.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from builders.projects import ROOT
from cinetune import params as params_module
from cinetune.data.download import MEGABYTES_A_CLIP
from cinetune.model.sizes import size_of
from cinetune.params import Params
from cinetune.runtime import cost

pytestmark = pytest.mark.experience

QUOTING = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("recipes/*.yaml"))]
NUMBER = r"([\d,.]*\d)"


def text_of(name: str | Path) -> str:
    """A file's words in one line, without the marks of comments."""
    return " ".join((ROOT / name).read_text(encoding="utf-8").replace("\n#", "\n").split())


def number_in(name: str, pattern: str) -> float:
    [found] = re.findall(pattern, text_of(name))
    return float(found.replace(",", ""))


@dataclass(frozen=True)
class Figures:
    """What the estimates are computed from."""

    clips: float
    questions: float
    megabytes: float
    frame_megabytes: float
    shots_s: float
    uniform_s: float
    keyframe_s: float
    add_s_per_gb: float
    pause_s: float
    base_gb: float

    def gigabytes(self, megabytes: float, clips: float = 0) -> float:
        return (clips or self.clips) * megabytes / 1000

    def hours(self, seconds: float, clips: float = 0) -> float:
        return (clips or self.clips) * seconds / 3600


@pytest.fixture(scope="module")
def recipe() -> Params:
    return params_module.load_over(ROOT / "recipes/cinepile-7b.yaml", ROOT / "params.yaml")


@pytest.fixture(scope="module")
def figures(recipe: Params) -> Figures:
    measured = "docs/scaling.md"
    config, _, is_own = cost.base_shape(recipe.model)
    assert not is_own
    size = size_of(config, recipe.train.lora_rank)
    return Figures(
        clips=number_in(measured, rf"\| {NUMBER} clips \(CinePile\)"),
        questions=number_in("docs/cinepile.md", rf"`v1` \({NUMBER} training"),
        megabytes=number_in(measured, rf"{NUMBER} MB for the clip itself"),
        frame_megabytes=number_in(measured, rf"{NUMBER} MB stored per clip"),
        shots_s=number_in(measured, rf"{NUMBER} CPU s per clip of 160 s with `policy=shots`"),
        uniform_s=number_in(measured, rf"{NUMBER} with `uniform`,"),
        keyframe_s=number_in(measured, rf"{NUMBER} with `uniform` and `seek=keyframe`"),
        add_s_per_gb=number_in(measured, rf"DVC adds 1 GB in {NUMBER} s"),
        pause_s=recipe.download.pause_s,
        base_gb=2 * (size.quantisable + size.other) / 1e9,
    )


def test_what_was_measured_is_what_the_commands_compute_with(figures: Figures, recipe: Params) -> None:
    assert figures.megabytes == MEGABYTES_A_CLIP
    frames = recipe.frames
    assert figures.frame_megabytes == pytest.approx(frames.num_frames * frames.size**2 * 3 / 1e6, abs=1e-3)
    assert params_module.load(ROOT / "params.yaml").download.pause_s == figures.pause_s


# What is quoted, wherever it is, and what it must be.
QUOTED: dict[str, Callable[[Figures], str]] = {
    rf"{NUMBER} GB of clips": lambda it: f"{it.gigabytes(it.megabytes):.0f}",
    rf"\| clips at 360p \| {NUMBER} GB": lambda it: f"{it.gigabytes(it.megabytes):.0f}",
    rf"{NUMBER} GB more with `pin=true`": lambda it: f"{it.gigabytes(it.megabytes):.0f}",
    rf"{NUMBER} MB per clip, measured": lambda it: f"{it.megabytes:g}",
    rf"{NUMBER} GB of frames": lambda it: f"{it.gigabytes(it.frame_megabytes):.1f}",
    rf"{NUMBER} GB more for the frames": lambda it: f"{it.gigabytes(it.frame_megabytes):.1f}",
    rf"\| frames, 8 of 224 x 224 \| {NUMBER} GB": lambda it: f"{it.gigabytes(it.frame_megabytes):.1f}",
    rf"{NUMBER} GB for CinePile": lambda it: f"{it.gigabytes(it.frame_megabytes):.1f}",
    rf"CinePile's 9,396 clips take {NUMBER} GB": lambda it: f"{it.gigabytes(it.frame_megabytes):.1f}",
    rf"{NUMBER} MB per clip at 224": lambda it: f"{it.frame_megabytes:.1f}",
    rf"one copy per question would take {NUMBER} GB": lambda it: f"{it.questions * it.frame_megabytes / 1000:.0f}",
    rf"{NUMBER} GB of base model": lambda it: f"{it.base_gb:.0f}",
    rf"base model in bfloat16 \| {NUMBER} GB": lambda it: f"{it.base_gb:.0f}",
    rf"hub models, {NUMBER} GB for the 7B": lambda it: f"{it.base_gb:.0f}",
    rf"about {NUMBER} GB in all": lambda it: f"{total_gb(it):.0f}",
    rf"{NUMBER} clips an hour": lambda it: f"{3600 / it.pause_s:.0f}",
    rf"{NUMBER} (?:h|to download) at 300 clips": lambda it: f"{it.hours(it.pause_s):.0f}",
    rf"{NUMBER} to decode on 8 cores": lambda it: f"{it.hours(it.shots_s) / 8:.1f}",
    rf"{NUMBER} core-hours with `policy=shots`": lambda it: f"{it.hours(it.shots_s):.0f}",
    rf"`policy=shots`, {NUMBER} with `uniform` \|": lambda it: f"{it.hours(it.uniform_s):.0f}",
    rf"{NUMBER} min to pin": lambda it: f"{it.gigabytes(it.megabytes) * it.add_s_per_gb / 60:.0f}",
    rf"shards of 128 clips \| {NUMBER} \|": lambda it: f"{-(-it.clips // 128):.0f}",
}


def total_gb(figures: Figures) -> float:
    """Of clips and frames, each twice with DVC's cache, and the base; to ten."""
    twice = 2 * figures.gigabytes(figures.megabytes + figures.frame_megabytes)
    return round((twice + figures.base_gb) / 10) * 10


@pytest.mark.parametrize("pattern", QUOTED)
def test_a_quoted_estimate_is_the_computed_one_wherever_it_stands(figures: Figures, pattern: str) -> None:
    quoted = {(path.name, found) for path in QUOTING for found in re.findall(pattern, text_of(path))}
    assert quoted and {found for _, found in quoted} == {QUOTED[pattern](figures)}, sorted(quoted)


SCALED: dict[str, Callable[[Figures, float], float]] = {
    "core-hours, `shots`": lambda it, clips: it.hours(it.shots_s, clips),
    "core-hours, `uniform`": lambda it, clips: it.hours(it.uniform_s, clips),
    "core-hours, `uniform` and `keyframe`": lambda it, clips: it.hours(it.keyframe_s, clips),
    "hours on 64 cores, `shots`": lambda it, clips: it.hours(it.shots_s, clips) / 64,
    "clips on disk": lambda it, clips: it.gigabytes(it.megabytes, clips),
    "frames on disk": lambda it, clips: it.gigabytes(it.frame_megabytes, clips),
    "download": lambda it, clips: it.hours(it.pause_s, clips),
}
UNITS = {"": 1.0, "GB": 1.0, "TB": 1e3, "PB": 1e6, "h": 1.0, "days": 24.0, "years": 24 * 365.25}


@pytest.mark.parametrize("name", SCALED)
def test_larger_numbers_of_clips_cost_as_much_more(figures: Figures, name: str) -> None:
    lines = (ROOT / "docs/scaling.md").read_text(encoding="utf-8").splitlines()
    [line] = [line for line in lines if re.match(rf"\| {re.escape(name)}( \||, at)", line)]
    for cell, clips in zip(line.strip("| ").split(" | ")[1:], (figures.clips, 1e6, 1e8), strict=True):
        number, _, unit = cell.partition(" ")
        told = float(number.replace(",", "")) * UNITS[unit]
        assert told == pytest.approx(SCALED[name](figures, clips), rel=0.03), cell


def test_the_readme_and_the_recipes_quote_the_tables_of_speeds() -> None:
    lines = (ROOT / "docs/performance.md").read_text(encoding="utf-8").splitlines()
    rows = {cells[0]: cells[1:] for line in lines if (cells := line.strip("| ").split(" | "))[1:]}
    alone, whole, rounded = (float(rows[way][0]) for way in ("separate", "packed", "fp8"))
    shares = [float(rows[way][2].removesuffix(" %")) for way in ("packed", "fp8")]
    words = f"With the extra `fast` one H100 trained {whole:.0f} questions/s in bfloat16 and {rounded:.0f} with `fp8`: "
    words += f"{whole / alone:.0f} and {rounded / alone:.0f} times our own training question by question, "
    words += f"and {shares[0]:.0f} and {shares[1]:.0f} % of what its matrix products alone allow"
    assert words in text_of("README.md")
    recipe = text_of("recipes/cinepile-7b-24gb.yaml")
    hours = float(re.findall(r"([\d.]+) to train on an H100", recipe)[0])
    slower = round(float(rows["whole card, bfloat16"][0]) / float(rows["24 GB"][0]), 1)
    assert (
        f"An H100 held to 24 GB took {slower:g} times that, so {5 * slower * hours:.0f} on a card with a fifth"
        in recipe
    )
