"""Who is champion after whatever was decided here or pressed in MLflow's UI, and what a model remembers of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from builders.evaluations import evaluated
from builders.predictions import predictions
from builders.projects import ROOT
from builders.refusals import sentence
from cinetune import params as params_module
from cinetune.artifacts import Evaluation
from cinetune.errors import InputError
from cinetune.params import Params
from cinetune.tracking import promotion, registry

pytestmark = pytest.mark.serving

MODEL = "clips"


@pytest.fixture
def register(store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Makes a version of this accuracy and promotes it: what is said."""
    store.create_registered_model(MODEL)
    made: dict[str, Evaluation] = {}
    params = params_module.load(ROOT / "params.yaml").override("register", {"name": MODEL})

    def fetch(name: str, version: str, target: Path) -> Path:
        made[version].write(target / "evaluation")
        return target / "evaluation"

    monkeypatch.setattr(registry, "fetch_evaluation", fetch)

    def make(accuracy: float, version: str = "", first: int = 0, asked: list[str] | None = None, **chosen: bool) -> str:
        def ask(number: str) -> Evaluation:
            if asked is None:
                raise InputError("there are no frames.")
            asked.append(number)
            return evaluated("m", questions_from(first, 0.5))

        evaluation = evaluated("m", questions_from(first, accuracy))
        version = version or str(store.create_model_version(MODEL, "nowhere").version)
        made[version] = evaluation
        changed: Params = params.override("register", chosen)
        return promotion.promote(changed, version, evaluation, ask)

    return make


def questions_from(first: int, accuracy: float) -> pd.DataFrame:
    """Predictions whose ids begin at a number."""
    rows = predictions(accuracy)
    numbers = range(first, first + len(rows))
    return rows.assign(
        question_id=[f"q{number}" for number in numbers],
        clip_id=[f"c{number // 10}" for number in numbers],
        film=[f"f{number // 30}" for number in numbers],
    )


def champion() -> str | None:
    return registry.aliases(MODEL).get("champion")


def reasons() -> list[tuple[str, str, str]]:
    return [(decision.version, decision.champion, decision.reason) for decision in promotion.history(MODEL)]


def test_every_decision_stays_in_the_models_history(register: Callable[..., str]) -> None:
    register(0.6)
    register(0.3)
    assert champion() == "1"
    register(0.3, version="2", force=True)
    promotion.roll_back(MODEL)
    register(0.3, version="2")
    found = reasons()
    assert [decision[:2] for decision in found] == [("1", "1"), ("2", "1"), ("2", "2"), ("2", "1"), ("2", "1")]
    told = ("no champion", "not ruled out", "forced; without that: -", "rolled back to version 1", "was rolled back")
    assert all(words in reason for words, (_, _, reason) in zip(told, found, strict=True))
    assert registry.version_tags(MODEL, "2")["champion_reason"] == found[-1][2]


def test_a_forced_champion_that_was_rolled_back_once_is_rolled_back_again(register: Callable[..., str]) -> None:
    register(0.6)
    register(0.3, force=True)
    assert promotion.roll_back(MODEL)[0] == champion() == "1"
    register(0.3, version="2", force=True)
    assert champion() == "2"
    assert promotion.roll_back(MODEL)[0] == champion() == "1"


def test_a_champion_by_rollback_is_not_called_rolled_back(register: Callable[..., str]) -> None:
    register(0.6)
    register(0.3, force=True)
    promotion.roll_back(MODEL)
    promotion.roll_back(MODEL, "2")
    told = {version: registry.version_tags(MODEL, version)["champion_reason"] for version in ("1", "2")}
    assert champion() == "2" and told == {"1": "rolled back to version 2", "2": "champion again, in the place of 1"}


def test_rollbacks_go_back_one_champion_after_another(register: Callable[..., str]) -> None:
    for accuracy in (0.3, 0.5, 0.7):
        register(accuracy)
    assert champion() == "3"
    assert [promotion.roll_back(MODEL)[0] for _ in range(2)] == ["2", "1"]
    assert "follows no other version: name the version" in sentence(lambda: promotion.roll_back(MODEL))


def test_an_alias_that_was_moved_by_hand_is_rolled_back_to_the_champion_before(
    register: Callable[..., str], store: mlflow.MlflowClient
) -> None:
    register(0.6)
    register(0.3)
    store.set_registered_model_alias(MODEL, "champion", "2")
    assert promotion.roll_back(MODEL)[0] == champion() == "1"
    store.delete_registered_model_alias(MODEL, "champion")
    assert promotion.roll_back(MODEL) == ("1", "champion is version 1 again, there was none.")


def test_a_champion_that_was_deleted_by_hand_is_passed_over(
    register: Callable[..., str], store: mlflow.MlflowClient
) -> None:
    for accuracy in (0.3, 0.5, 0.7):
        register(accuracy)
    store.delete_model_version(MODEL, "2")
    assert promotion.roll_back(MODEL)[0] == "1"
    store.delete_model_version(MODEL, "1")
    assert champion() is None
    register(0.5)
    assert champion() == "4"


@pytest.mark.parametrize("text", ["mine", "3", "[1]", '{"version": "1"}', '{"version": "1", "by": "me"}', ""])
def test_what_a_person_wrote_into_the_history_is_read_over(
    register: Callable[..., str], store: mlflow.MlflowClient, text: str
) -> None:
    register(0.6)
    store.set_registered_model_tag(MODEL, "history of this model", text)
    register(0.7)
    assert champion() == "2" and [decision.version for decision in promotion.history(MODEL)] == ["1", "2"]


def test_a_version_can_be_named_to_go_back_to(register: Callable[..., str]) -> None:
    for accuracy in (0.7, 0.5, 0.8):
        register(accuracy)
    assert champion() == "3"
    assert promotion.roll_back(MODEL, "2")[0] == champion() == "2"
    assert "is champion already" in sentence(lambda: promotion.roll_back(MODEL, "2"))
    assert "no version 9 of 'clips': choose from 1, 2, 3" in sentence(lambda: promotion.roll_back(MODEL, "9"))
    assert promotion.roll_back(MODEL)[0] == "1"


def test_a_model_without_versions_cannot_be_rolled_back(store: mlflow.MlflowClient) -> None:
    assert "there is no version of 'nobody': register one first" in sentence(lambda: promotion.roll_back("nobody"))


# ---- questions that the champion was never asked


def test_a_champion_is_evaluated_on_the_challengers_questions_where_it_answered_too_few(
    register: Callable[..., str],
) -> None:
    register(0.6)
    asked: list[str] = []
    said = register(0.9, first=300, asked=asked)
    assert asked == ["1"] and champion() == "2"
    assert "on the same 400 questions" in said and "version 1 was evaluated for this" in said
    # Most are the same: what it answered when it was registered decides.
    register(0.95, first=320, asked=asked)
    assert asked == ["1"] and champion() == "3"


def test_a_champion_that_cannot_be_evaluated_stays_and_the_reason_says_why(register: Callable[..., str]) -> None:
    register(0.6)
    said = register(0.9, first=300)
    assert champion() == "1"
    assert "100 of 700 questions were put to both" in said and "there are no frames" in said
    forced = register(0.9, version="2", first=300, force=True)
    assert champion() == "2" and "forced; without that: 100 of 700" in forced


def test_a_champion_whose_predictions_are_gone_is_evaluated_again(
    register: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    register(0.6)

    def gone(*_: object) -> Path:
        raise InputError("it is gone.")

    monkeypatch.setattr(registry, "fetch_evaluation", gone)
    asked: list[str] = []
    register(0.9, asked=asked)
    assert asked == ["1"] and champion() == "2"
