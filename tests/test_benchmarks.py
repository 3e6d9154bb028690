"""The benchmark scripts run and say what they promise; how fast anything is, no test asserts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


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
    assert found.keys() == {"train_ratio", "score_ratio", "pack_ratio", "pack_score_ratio"}
    assert all(ratio > 0 for ratio in found.values())


@pytest.mark.training
def test_throughput_of_the_large_model_is_refused_without_a_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    command = [sys.executable, str(ROOT / "benchmarks" / "throughput.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and "add --tiny" in done.stderr
