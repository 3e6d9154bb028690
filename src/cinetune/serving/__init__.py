"""The registered model as a pyfunc, and its server."""

from typing import Any


def __getattr__(name: str) -> Any:
    # Versions that 0.1.0 registered import it from here.
    if name != "ClipModel":
        raise AttributeError(name)
    from cinetune.serving.pyfunc import ClipModel

    return ClipModel
