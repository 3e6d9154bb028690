"""What belongs to a base: its configuration, its tokenizer, and the weights that its index names."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders.hubs import COMMIT, Hub, serving_hub
from builders.refusals import sentence
from cinetune.model import lookup, shape
from cinetune.params import ModelParams

pytestmark = pytest.mark.training

SHARDS = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
OWN = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "model.safetensors.index.json",
    *SHARDS,
)
OTHERS = ("README.md", "consolidated.safetensors", "pytorch_model.bin", "training_args.json")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    for name in (*OWN, *OTHERS):
        (folder / name).write_text(name)
    (folder / "config.json").write_text('{"model_type": "video_llava"}')
    weight_map = {f"tensor{number}": shard for number, shard in enumerate(SHARDS)}
    (folder / lookup.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_the_files_of_a_base_are_those_that_its_index_and_its_tokenizer_name(base: Path) -> None:
    assert {path.name for path in lookup.base_files(base)} == set(OWN)


def test_one_file_of_weights_comes_before_an_index_as_it_does_when_loaded(base: Path) -> None:
    (base / lookup.WEIGHTS).touch()
    assert [path.name for path in lookup.weights_files(base)] == [lookup.WEIGHTS]


@pytest.mark.parametrize("name", OWN)
def test_a_change_of_any_of_its_files_is_another_base(base: Path, name: str) -> None:
    before, measured = lookup.base_digest(base), lookup.measure_base(ModelParams(str(base), "", "none", "float32"))
    path = base / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {"more": 1}) if "{" in path.read_text() else "other")
    assert lookup.base_digest(base) != before and not lookup.has_digest(base, before)
    assert lookup.measure_base(ModelParams(str(base), "", "none", "float32")) != measured


@pytest.mark.parametrize("name", OTHERS)
def test_what_lies_beside_it_changes_nothing(base: Path, name: str) -> None:
    before, measured = lookup.base_digest(base), lookup.measure_base(ModelParams(str(base), "", "none", "float32"))
    (base / name).write_text("other")
    assert lookup.base_digest(base) == before
    assert lookup.measure_base(ModelParams(str(base), "", "none", "float32")) == measured


def test_a_version_of_a_release_before_still_knows_its_base(base: Path) -> None:
    """Up to 0.2 the digest covered the configuration, the tokenizer's two files and every file of weights."""
    covered = sorted(["config.json", "tokenizer.json", "tokenizer_config.json", "consolidated.safetensors", *SHARDS])
    lines = [f"{name} {hashlib.sha256((base / name).read_bytes()).hexdigest()}\n" for name in covered]
    assert lookup.has_digest(base, hashlib.sha256("".join(lines).encode()).hexdigest())
    assert not lookup.has_digest(base, hashlib.sha256(b"").hexdigest())


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "no list of shards"),
        ("[]", "no list of shards"),
        ('{"weight_map": {"a": "model-00001-of-00003.safetensors", "b": "gone.safetensors"}}', "1 of 2 shards"),
        ('{"weight_map": {"a": "../secret.safetensors"}}', "'../secret.safetensors'"),
    ],
)
def test_an_index_that_names_what_is_not_there_is_refused(base: Path, content: str, named: str) -> None:
    (base.parent / "secret.safetensors").touch()
    (base / lookup.INDEX).write_text(content)
    assert named in sentence(lambda: lookup.base_files(base))


def test_a_copy_of_its_files_is_the_same_base(base: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in lookup.base_files(base):
        shutil.copy(path, copy / path.name)
    assert lookup.base_digest(copy) == lookup.base_digest(base)


# ---- the hub

NAME = "owner/Video-LLaVA"
REFUSALS = [
    ((401, "GatedRepo", "Access is restricted. Please log in."), "hf auth login"),
    ((403, "GatedRepo", "You are not in the authorized list."), "accepted its terms"),
    ((404, "RevisionNotFound", ""), "there is no commit 'abc'"),
    ((404, "RepoNotFound", ""), "check its name"),
    ((401, "", "Invalid credentials in Authorization header"), "does not accept the token"),
    ((403, "", "Forbidden"), "read access"),
    ((429, "", "Too many requests"), "busy (it answered 429)"),
]


@pytest.fixture
def hub(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = {path.name: path.read_bytes() for path in base.iterdir()}
    with serving_hub({NAME: files}) as served:
        for name, value in {
            "ENDPOINT": served.root,
            "HUGGINGFACE_CO_URL_TEMPLATE": served.root + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        # A hub that is busy is asked again, with pauses.
        monkeypatch.setattr("time.sleep", lambda _: None)
        yield served


def of_hub(revision: str = "") -> ModelParams:
    return ModelParams(NAME, revision, "none", "float32")


@pytest.mark.parametrize(("refusal", "remedy"), REFUSALS)
def test_each_fault_of_the_hub_has_its_own_remedy(hub: Hub, refusal: tuple[int, str, str], remedy: str) -> None:
    hub.refusal = refusal
    for ask in (lambda: lookup.folder_of(of_hub("abc")), lambda: shape.read_shape(of_hub("abc"))):
        said = sentence(ask)
        assert f"base model {NAME!r} cannot be loaded from the hub" in said and remedy in said


def test_a_base_of_the_hub_is_known_by_its_commit_and_its_content(hub: Hub, base: Path) -> None:
    assert lookup.measure_base(of_hub()) == {"commit": COMMIT, **lookup.measure(base)}
    hub.commits[NAME] = COMMIT[::-1]
    assert lookup.measure_base(of_hub())["commit"] == COMMIT[::-1]
    assert lookup.measure_base(ModelParams(str(base), "", "none", "float32")) == lookup.measure(base)
