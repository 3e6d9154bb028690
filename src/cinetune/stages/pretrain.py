"""Make the tiny base model: a Video-LLaVA that can look and bind labels, but never saw CinePile's format.

Takes nothing but the sections `pretrain` and `frames` of params.yaml; makes the folder `pretrain.out` in
Hugging Face's layout. Minutes on a GPU, hours without. Run it with `mlflow run . -e pretrain`.
"""

from __future__ import annotations

from collections.abc import Sequence

from cinetune import stages, tracking
from cinetune.params import Params


def run(params: Params) -> dict[str, float]:
    """Held-out figures of the base."""
    name = stages.run_name("pretrain", *stages.unusual(params, "pretrain"))
    with tracking.start("pretrain", stages.tags_of(params), name=name) as tracked:
        from cinetune import model, pretraining
        from cinetune.frames import FrameSettings

        tracked.log_params(stages.sections(params, "frames", "pretrain"))
        device = model.default_device() if params.pretrain.device == "auto" else params.pretrain.device

        def report(step: int, metrics: dict[str, float]) -> None:
            tracked.log_metrics(metrics, step)

        figures = pretraining.pretrain(params.pretrain, FrameSettings.of(params.frames), device, report)
        print(f"pretrain: {params.pretrain.out}, open answers {figures['held_out/open']:.1%} right.")
        return figures


def main(argv: Sequence[str]) -> int:
    run(stages.parse(argv, "pretrain", __doc__).params)
    return 0
