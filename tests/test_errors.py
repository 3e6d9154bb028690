"""What another library says becomes part of one sentence."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from cinetune.errors import MAX_REASON_CHARS, of_hub, reason_of


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("It is gone.\n\n  Look elsewhere.", "It is gone. Look elsewhere"),
        ("no full stop", "no full stop"),
        ("x" * MAX_REASON_CHARS, "x" * MAX_REASON_CHARS),
        ("x" * 300 + ".", "x" * (MAX_REASON_CHARS - 1) + "…"),
    ],
)
def test_a_reason_is_one_line_without_a_full_stop_and_shortened(said: str, reason: str) -> None:
    assert reason_of(OSError(said)) == reason


# ---- the hub


def caused(error: BaseException) -> list[BaseException]:
    """An error as the hub's client raises it, and as others raise it for that."""
    missing = LocalEntryNotFoundError("not on disk")
    missing.__cause__ = error
    outer = OSError("cannot load it")
    outer.__cause__ = missing
    return [error, missing, outer]


def told(error: BaseException) -> str:
    return str(of_hub(error, "base 'a/b' cannot be loaded", "a/b", "abc"))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_is_busy_is_to_be_asked_later(status: int) -> None:
    response: Any = type("Response", (), {"status_code": status, "headers": {}, "request": None})()
    for error in caused(HfHubHTTPError("busy", response=response)):
        assert f"answered {status}" in told(error)


@pytest.mark.parametrize("away", [HTTPError("refused"), ConnectionError("reset"), TimeoutError("timed out")])
def test_a_hub_that_cannot_be_reached_is_a_matter_of_the_network(away: BaseException) -> None:
    for error in caused(away):
        assert "check the network" in told(error)


def test_what_is_offline_by_wish_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in caused(OfflineModeIsEnabled("offline")):
        assert "HF_HUB_OFFLINE" in told(error)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in told(LocalEntryNotFoundError("not on disk"))


def test_what_the_machine_refuses_is_not_the_hub_s_fault() -> None:
    for error in caused(OSError(errno.ENOSPC, "No space left on device")):
        assert "no room left" in told(error)


def test_another_fault_is_told_in_its_own_words() -> None:
    assert told(OSError("no file named config.json.")) == (
        "base 'a/b' cannot be loaded: no file named config.json, or name local files."
    )
