"""CinePile's terms must be acknowledged."""

from __future__ import annotations

import pytest

from builders.refusals import sentence
from cinetune.data import licences

pytestmark = pytest.mark.serving


def test_cinepiles_licence_must_be_acknowledged_and_no_other() -> None:
    assert licences.of_data("CinePile-mini", "") == "Apache-2.0"
    assert licences.of_data("my films", "") == "unknown"
    for name in ("CinePile-v1", "cinepile v2"):
        assert "register.accept_licence" in sentence(lambda name=name: licences.of_data(name, ""))
        assert "register.accept_licence" in sentence(lambda name=name: licences.of_data(name, "yes"))
        assert licences.of_data(name, "CC-BY-NC-SA-4.0") == "CC-BY-NC-SA-4.0"
