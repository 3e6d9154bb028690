"""What belongs to an adapter comes from where it was made: settings, base, licence, hashes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from builders.refusals import sentence
from builders.served import Logged
from cinetune.export.source import Source
from cinetune.params import Params

pytestmark = pytest.mark.serving


def test_a_version_is_exported_as_it_is_served(
    logged: Logged, served_folder: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, params = served_folder
    monkeypatch.chdir(root)
    other = params.override("frames", {"num_frames": 3, "size": 32}).override("prompt", {"max_subtitle_tokens": 9})
    other = other.override("model", {"base": "elsewhere", "dtype": "bfloat16"})
    source = Source.open(logged.folder, logged.uri, other)
    assert source.params.sections("model", "frames", "prompt") == params.sections("model", "frames", "prompt")
    assert source.base.samefile(root / "base-model")
    assert source.licence == "Apache-2.0" and source.origin["git.commit"] == "c0ffee"
    assert source.model(is_quantised=True).base == str(source.base)


def test_another_base_than_that_of_the_version_is_refused(
    logged: Logged, served_folder: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "base"
    shutil.copytree(served_folder[0] / "base-model", other)
    (other / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    monkeypatch.setenv("CINETUNE_BASE_MODEL", str(other))
    told = sentence(lambda: Source.open(logged.folder, logged.uri, served_folder[1]))
    assert "CINETUNE_BASE_MODEL" in told and logged.uri in told


def opened(root: Path, params: Params, **data: Any) -> Source:
    return Source.open(root / "adapter", "adapter", params.override("data", data))


def test_an_adapter_stands_under_the_licence_of_its_data(
    served_folder: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, params = served_folder
    monkeypatch.chdir(root)
    assert opened(root, params).licence == "Apache-2.0"
    assert "CC-BY-NC-SA-4.0" in sentence(lambda: opened(root, params, name="CinePile v2"))
    accepted = params.override("register", {"accept_licence": "CC-BY-NC-SA-4.0"})
    assert opened(root, accepted, name="CinePile v2").licence == "CC-BY-NC-SA-4.0"


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path, served_folder: tuple[Path, Params]) -> None:
    assert "no adapter" in sentence(lambda: Source.open(tmp_path, "models:/x/1", served_folder[1]))
