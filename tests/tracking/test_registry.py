"""What the registry tells of versions, and whose versions a model takes."""

from __future__ import annotations

import mlflow
import pytest

from builders.refusals import sentence
from cinetune.task import prompts
from cinetune.task.description import CINEPILE, Task
from cinetune.tracking import registry

pytestmark = pytest.mark.serving

MODEL = "clips"


@pytest.fixture
def versions(store: mlflow.MlflowClient) -> mlflow.MlflowClient:
    """Two versions, the second with little known of it."""
    store.create_registered_model(MODEL)
    store.create_model_version(MODEL, "nowhere", tags={"data": "CinePile-mini", "accuracy": "71.3 %"})
    store.create_model_version(MODEL, "nowhere")
    store.set_registered_model_alias(MODEL, "champion", "1")
    return store


def test_a_model_holds_versions_of_one_data_set(versions: mlflow.MlflowClient) -> None:
    registry.check_data(MODEL, "CinePile-mini")
    registry.check_data("another", "CinePile-v1")
    said = sentence(lambda: registry.check_data(MODEL, "CinePile v1"))
    assert "'clips' is of CinePile-mini" in said and "register.name=cinepile-v1-video-llava" in said


def test_what_is_served_is_told_as_far_as_it_is_known(versions: mlflow.MlflowClient) -> None:
    assert registry.told(f"models:/{MODEL}@champion") == {
        "model": MODEL, "version": "1", "data": "CinePile-mini", "accuracy": "71.3 %",
    }  # fmt: skip
    assert registry.told(f"models:/{MODEL}/2") == {"model": MODEL, "version": "2"}
    assert registry.told("outputs/model") == {"model": "outputs/model"}
    assert "cannot be read" in sentence(lambda: registry.told(f"models:/{MODEL}/9"))


def test_a_template_has_one_version_in_the_prompt_registry_linked_to_each_model(store: mlflow.MlflowClient) -> None:
    first, second = (store.create_logged_model("0", name=f"m{number}") for number in (1, 2))
    made = [registry.register_prompt("clips", model.model_uri, CINEPILE) for model in (first, first, second)]
    assert made == ["clips-prompt/1"] * 3
    other = Task(instruction="Watch this.", max_choices=3)
    assert registry.register_prompt("clips", second.model_uri, other) == "clips-prompt/2"
    held = store.load_prompt("prompts:/clips-prompt/1")
    assert held.tags["prompt.hash"] == prompts.template_hash()
    assert held.template.startswith(prompts.ASKING) and {"subtitles", "question", "option_E"} <= held.variables
    newest = store.load_prompt("prompts:/clips-prompt/2")
    assert "Watch this." in newest.template and "option_D" not in newest.variables
    linked = store.get_logged_model(second.model_id).tags
    assert any("clips-prompt" in value for value in linked.values())
