"""What the registry tells of versions, and whose versions a model takes."""

from __future__ import annotations

import mlflow
import pytest

from builders.refusals import sentence
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
