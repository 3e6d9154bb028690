"""The core runs where only torch, transformers and PEFT are, as on a rented GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from builders.projects import ROOT, environment

pytestmark = pytest.mark.experience

# What a bare GPU machine lacks; an import of one of them fails as it does there.
ABSENT = ("av", "mlflow", "dvc", "bitsandbytes", "datasets", "scenedetect", "optuna", "yt_dlp", "pysubs2")
GPU_TESTS = ("tests/model/test_gpu.py", "tests/export/test_gpu.py")
COLLECT = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT}))
import pytest
sys.exit(pytest.main(["-q", "--collect-only", "-p", "no:cacheprovider", "-m", "gpu", "--noconftest", *{GPU_TESTS}]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [COLLECT, f"import sys; sys.modules.update(dict.fromkeys({ABSENT})); sys.argv[1:] = ['--help']; "
     "import runpy; runpy.run_path('benchmarks/throughput.py', run_name='__main__')"],
    ids=["tests", "benchmark"],
)  # fmt: skip
def test_what_runs_on_a_gpu_needs_no_more(code: str) -> None:
    variables = environment() | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
