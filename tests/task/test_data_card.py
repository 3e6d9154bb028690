"""A folder says itself which data it holds, and a label that contradicts it is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from builders.downloads import PARAMS
from builders.questions import row
from builders.refusals import sentence
from cinetune import params as params_module
from cinetune import pipeline
from cinetune.data import intake
from cinetune.data.sources import selection
from cinetune.params import DataParams
from cinetune.task import data_card, description
from cinetune.task.data_card import DataCard
from cinetune.task.description import Task
from cinetune.tracking.runs import UntrackedRun
from cinetune.training import session

pytestmark = pytest.mark.data

COMMIT = "0" * 40


def of_hub(version: str, commit: str = COMMIT) -> DataCard:
    return selection.card_of(dataclasses.replace(PARAMS, questions=version, revision=commit))


V1, V2 = of_hub("v1"), of_hub("v2")


def fill(folder: Path, about: DataCard, *splits: str, is_told: bool = False) -> None:
    """As the command does it, three questions a split."""
    new = folder / "new"
    (folder / "questions").mkdir(parents=True, exist_ok=True)
    new.mkdir(exist_ok=True)
    names = [str(folder / f"{split}.json") for split in splits]
    for name in names:
        Path(name).write_text(json.dumps([row(number) for number in range(3)]), encoding="utf-8")
    taken = intake.read("|".join(names), "", None, new)
    selection.place(taken, taken.first(0), new, folder, about, is_told)


def test_a_card_says_name_version_commit_licence_and_rows(tmp_path: Path) -> None:
    assert data_card.read(tmp_path) is None
    fill(tmp_path, V1, "train", "test")
    assert json.loads((tmp_path / "card.json").read_text(encoding="utf-8")) == {
        "name": "CinePile-v1", "version": "v1", "commit": COMMIT, "licence": "CC-BY-NC-SA-4.0",
        "rows": {"test": 3, "train": 3},
    }  # fmt: skip
    assert data_card.read(tmp_path).licence == "CC-BY-NC-SA-4.0"
    (tmp_path / "card.json").write_text("[]")
    assert "damaged" in sentence(lambda: data_card.read(tmp_path))


@pytest.mark.parametrize(
    ("about", "label", "remedy"),
    [
        (V1, "CinePile-v1", ""), (V1, "cinepile v1", ""), (V1, "CinePile-mini", "CinePile-v1"),
        (V2, "CinePile-v1", "CinePile-v2"), (V1, "my films", "CinePile-v1"), (DataCard(), "my films", ""),
        (DataCard(), "CinePile-v1", ""), (DataCard(), "CinePile-mini", "films"), (V1, "", ""), (DataCard(), "", ""),
    ],
)  # fmt: skip
def test_a_label_that_contradicts_the_card_is_refused(tmp_path: Path, about: DataCard, label: str, remedy: str) -> None:
    fill(tmp_path / "films", about, "train")
    labelled = DataParams(name=label, root=str(tmp_path / "films"))
    if remedy:
        text = sentence(lambda: data_card.check(labelled))
        assert repr(label) in text and f"set data.name to {remedy}, or leave it empty" in text
    else:
        data_card.check(labelled)
    data_card.check(dataclasses.replace(labelled, root=str(tmp_path / "elsewhere")))


def test_data_are_called_what_their_folder_says_unless_they_have_a_label(tmp_path: Path) -> None:
    roots = [tmp_path / name for name in ("data", "hub", "films", "mine", "named", "bare")]
    fill(roots[1], V1, "train")
    fill(roots[2], DataCard(), "train")
    for root, name in zip(roots[3:5], ("", "Cameras"), strict=True):
        root.mkdir()
        description.write(root, Task(name=name))
    names = ["CinePile-mini", "CinePile-v1", "films", "mine", "Cameras", "bare"]
    assert [data_card.name_of(DataParams(name="", root=str(root))) for root in roots] == names
    assert data_card.name_of(DataParams(name="Ours", root=str(roots[5]))) == "Ours"
    text = sentence(lambda: data_card.check(DataParams(name="CinePile-mini", root=str(roots[3]))))
    assert "holds a task of its own: set data.name to mine" in text


def test_what_is_kept_of_params_names_the_data(tmp_path: Path) -> None:
    params = params_module.load().override("data", {"root": str(tmp_path / "films")})
    assert params.data.name == "" and session.settings_of(params)["data"]["name"] == "films"


def test_a_stage_that_reads_questions_holds_their_label_against_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = params_module.load().override("data", {"root": str(tmp_path / "cinepile")})
    fill(tmp_path / "cinepile", V1, "train")
    run = UntrackedRun(is_silent=True)
    mistaken = params.override("data", {"name": "CinePile-mini"})
    assert "CinePile-v1" in sentence(lambda: pipeline.log_questions(run, mistaken, "train"))
    assert pipeline.log_questions(run, params, "train")[0] == "CinePile-v1 train"
    tags = pipeline.tags_of(params)
    assert (tags["data.source"], tags["data.licence"]) == (f"CinePile-v1 at commit {COMMIT}", "CC-BY-NC-SA-4.0")


@pytest.mark.parametrize("about", [V2, DataCard(), of_hub("v1", "1" * 40)])
def test_a_folder_is_of_one_source_until_another_takes_its_place(tmp_path: Path, about: DataCard) -> None:
    fill(tmp_path, V1, "train", "test")
    text = sentence(lambda: fill(tmp_path, about, "train"))
    assert "CinePile-v1" in text and "replace=true" in text and "data_dir" in text
    assert (
        data_card.read(tmp_path).source == V1.source and len(pd.read_parquet(tmp_path / "questions/test.parquet")) == 3
    )
    fill(tmp_path, about, "train", is_told=True)
    assert data_card.read(tmp_path).source == about.source and data_card.read(tmp_path).rows == {"train": 3}
    assert [path.name for path in (tmp_path / "questions").iterdir()] == ["train.parquet"]
