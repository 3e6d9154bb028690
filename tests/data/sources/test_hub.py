"""The dataset on the hub: the version that was asked for at the commit that was named, and a remedy for each fault."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pandas as pd
import pytest

from builders.hubs import COMMIT, Hub, serving_hub
from builders.questions import row
from builders.refusals import sentence
from cinetune.data import intake
from cinetune.data.sources import hub

pytestmark = pytest.mark.data

REPO = f"datasets/{hub.NAME}"
BOTH = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train-*}
  - {split: test, path: data/test-*}
- config_name: v2
  default: true
  data_files:
  - {split: train, path: [v2/train-0*, v2/train-1*]}
  - {split: test, path: v2/test-*}
---
# CinePile
"""
ONE = BOTH.partition("- config_name: v2")[0] + "---\n"


def table(question: str) -> bytes:
    content = io.BytesIO()
    pd.DataFrame([row(0, question=question, videoID="-aB3_xyz-09")]).to_parquet(content, index=False)
    return content.getvalue()


FILES = {
    f"{folder}/{split}-{part}-of-2.parquet": table(f"{folder} {split} {part}?")
    for folder in ("data", "v2")
    for split in ("train", "test")
    for part in (0, 1)
}


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving_hub({REPO: {"README.md": BOTH.encode(), **FILES}}) as served:
        api = huggingface_hub.HfApi(endpoint=served.root)
        fetch = api.hf_hub_download
        monkeypatch.setattr(api, "hf_hub_download", lambda *given, **more: fetch(*given, cache_dir=tmp_path, **more))
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
        yield served


def asked(version: str, folder: Path, revision: str = COMMIT) -> dict[str, list[str]]:
    """Questions by split."""
    (folder / "out").mkdir(exist_ok=True)
    intake.read(version, revision, None, folder / "out")
    return {path.stem: pd.read_parquet(path).question.tolist() for path in (folder / "out").iterdir()}


@pytest.mark.parametrize(("version", "folder"), [("v1", "data"), ("v2", "v2")])
def test_a_version_is_read_from_its_own_files_whichever_the_card_calls_the_default(
    served: Hub, tmp_path: Path, version: str, folder: str
) -> None:
    found = asked(version, tmp_path)
    assert found == {split: [f"{folder} {split} 0?", f"{folder} {split} 1?"] for split in ("train", "test")}
    assert not any(f"/{other}/" in path for path in served.asked for other in {"data", "v2"} - {folder})


def test_a_commit_from_before_a_version_is_refused_by_name(served: Hub, tmp_path: Path) -> None:
    served.repos[REPO]["README.md"] = ONE.encode()
    text = sentence(lambda: asked("v2", tmp_path))
    assert "v2" in text and COMMIT in text and "History" in text
    assert asked("v1", tmp_path)["test"] == ["data test 0?", "data test 1?"]


def test_a_commit_is_needed(tmp_path: Path) -> None:
    assert "download.revision" in sentence(lambda: asked("v1", tmp_path, revision=""))


NAMES = list(FILES)


@pytest.mark.parametrize(
    ("version", "configs", "folder"),
    [
        ("v1", [], "data"),
        ("v2", [], "v2"),
        ("v1", [{"config_name": "v1", "data_dir": "v2"}, {"config_name": "default", "data_dir": "data"}], "v2"),
        ("v1", [{"data_files": [{"split": "test", "path": "data/test-*"}]}], "data"),
        ("v2", [{"config_name": "v2", "data_dir": "v2"}], "v2"),
        ("v2", [{"config_name": "default", "data_dir": "data"}], ""),
        ("v1", [{"config_name": "v2", "data_dir": "v2"}], ""),
    ],
)
def test_the_card_says_which_files_a_version_has(version: str, configs: list[dict[str, Any]], folder: str) -> None:
    expected = [f"{folder}/test-0-of-2.parquet", f"{folder}/test-1-of-2.parquet"] if folder else []
    assert hub.files_of(version, "test", NAMES, configs) == expected


@pytest.mark.parametrize(
    ("refusal", "remedy"),
    [
        ((401, "GatedRepo", "Access is restricted. Please log in."), "hf auth login"),
        ((403, "GatedRepo", "You are not in the authorized list."), "accepted its terms"),
        ((404, "RevisionNotFound", ""), "no commit"),
        ((404, "RepoNotFound", ""), "HF_ENDPOINT"),
        ((401, "", "Invalid credentials in Authorization header"), "does not accept the token"),
        ((403, "", "Forbidden"), "read access"),
    ],
)
def test_each_fault_of_the_hub_has_its_own_remedy(
    served: Hub, tmp_path: Path, refusal: tuple[int, str, str], remedy: str
) -> None:
    served.refusal = refusal
    assert remedy in sentence(lambda: asked("v1", tmp_path))
