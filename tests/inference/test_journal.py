"""Replies saved clip by clip survive a kill unchanged."""

import json
from pathlib import Path

import numpy as np
import pytest

from builders.refusals import sentence
from cinetune.inference.journal import Journal

pytestmark = pytest.mark.evaluation


def test_one_evaluation_is_not_run_twice_at_once(tmp_path: Path):
    with Journal(tmp_path / "one"):
        assert "running already" in sentence(lambda: Journal(tmp_path / "one"))
        with Journal(tmp_path / "one", part=1):
            pass


def test_numbers_go_through_the_journal_unchanged(tmp_path: Path):
    shares = tuple(np.random.default_rng(0).random(5).tolist())
    given = {"none": [("B\n\u2028\ud800 'x'", shares, 2.4e-6), ("", (float("nan"),) * 5, float("nan"))]}
    with Journal(tmp_path) as journal:
        journal.add("clip", given)
        found = journal.read()["clip"]["none"]
    assert found[0] == given["none"][0]
    assert json.dumps(found[1]) == json.dumps(given["none"][1])
