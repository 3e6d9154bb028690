"""What tests of downloads share."""

from __future__ import annotations

import pytest

from builders.downloads import Script


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    return Script(monkeypatch)
