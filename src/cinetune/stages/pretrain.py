"""Make the tiny base model: a Video-LLaVA that can look and bind labels, but never saw CinePile's format.

Takes nothing but the sections `pretrain` and `frames` of params.yaml; makes the folder `pretrain.out` in
Hugging Face's layout. Minutes on a GPU, hours without. Run it with `mlflow run . -e pretrain`.
"""

from __future__ import annotations

from collections.abc import Sequence

from cinetune import pipeline
from cinetune.cli import parse
from cinetune.params import Params


def run(params: Params) -> dict[str, float]:
    """Held-out metrics of the base."""
    with pipeline.started("pretrain", params, ["frames", "pretrain"]) as tracked:
        from cinetune.frames.sampling import FrameSettings
        from cinetune.model.base import default_device
        from cinetune.pretraining import trainer

        device = default_device() if params.pretrain.device == "auto" else params.pretrain.device

        def report(step: int, metrics: dict[str, float]) -> None:
            tracked.log_metrics(metrics, step)

        found = trainer.pretrain(params.pretrain, FrameSettings.of(params.frames), device, report)
        print(f"pretrain: {params.pretrain.out}, open answers {found['held_out/open']:.1%} right.")
        return found


def main(argv: Sequence[str]) -> int:
    run(parse(argv, "pretrain", __doc__).params)
    return 0
