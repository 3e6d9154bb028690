"""The benchmark scripts run and say what they promise; how fast anything is, no test asserts."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from builders.projects import ROOT


def figures(script: str, *arguments: str) -> dict[str, float]:
    """The figures of a benchmark's last line."""
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-2000:]
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["benchmark"] == script.removesuffix(".py") and last["machine"]
    return last["figures"]


@pytest.mark.training
@pytest.mark.slow
def test_throughput_compares_the_usual_recipe_separate_passes_and_packs() -> None:
    found = figures("throughput.py", "--tiny", "--questions", "4", "--repeats", "1")
    ratios = {"train_ratio", "score_ratio", "pack_ratio", "pack_score_ratio"}
    assert found.keys() == {*ratios, "train_of_limit", "score_of_limit"}
    assert all(ratio > 0 for ratio in found.values())


@pytest.mark.training
@pytest.mark.slow
@pytest.mark.nightly
def test_scaling_trains_in_one_process_and_in_two(tmp_path: Path) -> None:
    """It refuses losses that differ by itself."""
    found = figures("scaling.py", "--tiny", "--spread", "--processes", "1", "2", "--folder", str(tmp_path))
    assert found["ratio_of_1"] == 1 and found["ratio_of_2"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.training
@pytest.mark.slow
@pytest.mark.nightly
def test_the_rehearsal_is_killed_goes_on_and_scores_the_same_elsewhere(tmp_path: Path) -> None:
    found = figures("rehearsal.py", "--tiny", "--folder", str(tmp_path))
    assert 0 < found["begun_at"] < found["steps"] and found["scores_equal"] == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.training
@pytest.mark.slow
def test_throughput_of_the_large_model_is_refused_without_a_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    command = [sys.executable, str(ROOT / "benchmarks" / "throughput.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and "add --tiny" in done.stderr


BENCHMARK = """import json
print("way  seconds\\nours   {seconds}")
print(json.dumps({{"benchmark": "{name}", "machine": "a machine", "figures": {{"ratio": {seconds}}}}}))
"""


@pytest.mark.experience
def test_tables_are_collected_between_their_marks_and_the_rest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import collect

    (tmp_path / "docs").mkdir()
    document = tmp_path / "docs/performance.md"
    document.write_text("# How fast\n\nBy hand.\n", encoding="utf-8")
    for name, seconds in (("one", 3), ("two", 5)):
        (tmp_path / f"{name}.py").write_text(BENCHMARK.format(name=name, seconds=seconds), encoding="utf-8")
    assert collect.collect(tmp_path, ["one", "two"], document) == 0
    document.write_text(document.read_text(encoding="utf-8") + "\nBy hand again.\n", encoding="utf-8")
    (tmp_path / "one.py").write_text(BENCHMARK.format(name="one", seconds=4), encoding="utf-8")
    (tmp_path / "two.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    assert collect.collect(tmp_path, ["one", "two"], document) == 1
    text = document.read_text(encoding="utf-8")
    assert text.startswith("# How fast\n\nBy hand.\n") and text.endswith("\nBy hand again.\n")
    assert text.count("ours   4") == 1 and "ours   3" not in text and "ours   5" in text
    assert "a machine: ratio 4." in text and "two failed" in capsys.readouterr().err


@pytest.mark.experience
def test_every_benchmark_is_collected() -> None:
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"collect", "footage", "parity"}
    source = (ROOT / "benchmarks/collect.py").read_text(encoding="utf-8")
    found = re.findall(r"^(?:SCRIPTS|BY_NAME) = \((.*?)\)$|^SCRIPTS = \((.*?)^\)", source, re.M | re.S)
    assert scripts == {name for lines in found for line in lines for name in re.findall(r"\w+", line)}


@pytest.mark.data
@pytest.mark.slow
def test_no_reader_without_eyes_gets_far_and_one_finds_what_is_told(tmp_path: Path) -> None:
    """Of the questions of CinePile-mini that are marked visual, in any category; a guess gets 20 %."""
    assert figures("shortcuts.py", "--root", str(ROOT / "data"))["max_visual_accuracy"] < 35
    (tmp_path / "questions").mkdir()
    for split in ("train", "test"):
        rows = pd.read_parquet(ROOT / "data" / "questions" / f"{split}.parquet")
        rows = rows[rows["clip_id"].isin(rows["clip_id"].unique()[:40])].copy()
        first = rows.groupby("clip_id")["answer_key"].transform(lambda answers: "\n".join(answers))
        rows["subtitles"] = rows["subtitles"] + "\n" + first
        rows.to_parquet(tmp_path / "questions" / f"{split}.parquet", index=False)
    assert figures("shortcuts.py", "--root", str(tmp_path))["max_visual_accuracy"] > 50
