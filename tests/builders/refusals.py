"""How input is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cinetune.errors import InputError


def sentence(action: Callable[[], Any]) -> str:
    """The one sentence with which an action refuses its input."""
    with pytest.raises(InputError) as caught:
        action()
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text
    return text
