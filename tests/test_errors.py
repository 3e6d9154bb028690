"""What another library says becomes part of one sentence."""

from __future__ import annotations

import pytest

from cinetune.errors import MAX_REASON_CHARS, reason_of


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
