"""An export on the hub: whole, private, in the place of the one before, and refused with a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from builders.hubs import COMMIT, Shelf
from builders.refusals import sentence
from builders.servers import running
from cinetune.export import hub

pytestmark = pytest.mark.serving

REPO = "someone/cinepile-llava"


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    with running(Shelf()) as shelf:
        api = huggingface_hub.HfApi(endpoint=shelf.root, token="hf_secret")
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        yield shelf


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model-00001-of-00001.safetensors").write_bytes(b"weights")
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n", encoding="utf-8")
    return tmp_path


def test_all_of_a_folder_goes_to_a_private_repository(shelf: Shelf, folder: Path) -> None:
    assert hub.push(folder, REPO).endswith(COMMIT)
    assert shelf.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert shelf.repositories[REPO]["visibility"] == "private"
    assert shelf.tokens == {"Bearer hf_secret"}


def test_weights_of_an_earlier_export_are_gone_and_other_files_stay(shelf: Shelf, folder: Path) -> None:
    shelf.files = {"model.safetensors": b"older", "model.safetensors.index.json": b"{}", "notes.txt": b"mine"}
    hub.push(folder, REPO)
    assert set(shelf.files) == {path.name for path in folder.iterdir()} | {"notes.txt"}


def test_a_refusal_of_the_hub_is_one_sentence_that_keeps_the_export(shelf: Shelf, folder: Path) -> None:
    shelf.refusal = 403
    told = sentence(lambda: hub.push(folder, REPO))
    assert REPO in told and str(folder) in told and "hf_secret" not in told


@pytest.mark.parametrize("name", ["", "model", "a/b/c", "some one/model", "-/x", "https://example.org/a"])
def test_what_is_no_name_on_the_hub_is_refused_before_any_work(name: str) -> None:
    assert "<owner>/<name>" in sentence(lambda: hub.check(name))


def test_without_a_token_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert "hf auth login" in sentence(lambda: hub.check(REPO))
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")
    hub.check(REPO)
