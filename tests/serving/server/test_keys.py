"""The key that clients must show: where it comes from, and that it is never told."""

from __future__ import annotations

import pytest

from builders.refusals import sentence
from cinetune.serving.server import keys

pytestmark = pytest.mark.serving


@pytest.mark.parametrize("key", ["s3 cret", "s3cret\n", "s3crét", "s3cret\t", "s3cret\x7f"])
def test_a_key_that_no_header_holds_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(keys.NAME, key)
    told = sentence(keys.key_of_environment)
    assert keys.NAME in told and "s3" not in told


def test_without_a_key_everybody_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv(keys.NAME, raising=False)
        else:
            monkeypatch.setenv(keys.NAME, value)
        assert keys.key_of_environment() is None
        keys.check(keys.key_of_environment(), {})
