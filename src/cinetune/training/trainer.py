"""LoRA fine-tuning on packs with Hugging Face's Trainer: loss on the answer and its end token alone.

Each question weighs the same within an optimiser step, however its clip was packed. The adapter that is kept is the
one of the best validation accuracy, on films that were not trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    VideoLlavaForConditionalGeneration,
    set_seed,
)

from cinetune.errors import InputError
from cinetune.model import attention, planning
from cinetune.model.encoder import Encoder
from cinetune.model.lora import attach_lora
from cinetune.model.packing import Pack, collate, weights
from cinetune.model.proof import check_pack, pack_difference
from cinetune.model.sizes import size_of
from cinetune.params import TrainParams
from cinetune.runtime import checkpoints, cost, distributed, memory
from cinetune.runtime.sharing import EvenSteps, check_shares
from cinetune.task.questions import ClipQuestions
from cinetune.training import compilation

if TYPE_CHECKING:
    from peft import PeftModel
from cinetune.training.callbacks import Meter, Report, Reporter, meter_of
from cinetune.training.dataset import FramesOf, Packs
from cinetune.training.loss import letter_accuracy, loss_of
from cinetune.training.saving import EpochKeeper, Saver

LOG_STEPS = 5
PACK_WORKERS = 2
STATE = "trainer_state.json"


@dataclass(frozen=True)
class TrainingResult:
    """The adapted model with its best weights; `dropped_subtitle_tokens` were cut off over all training clips.

    attention: what computed that of packs.
    """

    model: PeftModel
    best_step: int
    steps: int
    validation_accuracy: float
    dropped_subtitle_tokens: int
    attention: str = ""


class PackTrainer(Trainer):
    """A Trainer whose batch is one pack, whose loss is per question and whose evaluation is accuracy by letter.

    Several processes share the packs of an optimiser step, and its gradient is that of one process with all of them.
    """

    control: TrainerControl

    def __init__(
        self, *, validation: Packs, meter: Meter, clips_per_step: int, costs: Sequence[float], **options: Any
    ) -> None:
        """costs: of each training pack, in floating-point operations."""
        super().__init__(**options)
        self.validation, self.meter, self.clips_per_step, self.costs = validation, meter, clips_per_step, costs
        # Of the optimiser step that is under way.
        self._losses: list[torch.Tensor] = []

    def get_train_dataloader(self) -> DataLoader:
        """Of several processes each gets an even share of every step; the order of one process alone is untouched."""
        loader = super().get_train_dataloader()
        if self.args.world_size > 1:
            shard = loader.batch_sampler
            shard.batch_sampler = EvenSteps(shard.batch_sampler, self.costs, self.clips_per_step, self.args.world_size)
        return loader

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Sum over this pack's questions, divided by the questions of the whole optimiser step.

        Times the processes, for the mean of their gradients is taken.
        """
        loss = loss_of(model, inputs)
        self._losses.append(loss.detach())
        return loss / num_items_in_batch * self.args.world_size

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        """Questions of one optimiser step over all processes: their slots' weights sum to one each."""
        self._losses.clear()
        self._silence_repeats(batch_samples)
        questions = torch.stack([batch["weights"].sum() for batch in batch_samples]).sum().to(device)
        tokens = sum(batch["input_ids"].numel() for batch in batch_samples)
        counts = torch.stack([questions, torch.tensor(float(tokens), device=device)])
        if self.args.world_size > 1:
            torch.distributed.all_reduce(counts)
        self.meter.add(counts)
        return counts[0]

    def _silence_repeats(self, batch_samples: list[dict[str, Any]]) -> None:
        """Repeated packs fill an epoch's last step up where processes have too few: they weigh nothing."""
        packs, step = len(self.train_dataset), self.state.global_step
        before = step % math.ceil(packs / self.clips_per_step) * self.clips_per_step
        in_step = min(self.clips_per_step, packs - before)
        own = math.ceil((in_step - self.args.process_index) / self.args.world_size)
        for batch in batch_samples[max(0, own) :]:
            batch["weights"].zero_()

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """Comes before the optimiser's step, so the weights are still those of the step before."""
        norm = super()._get_grad_norm(model, grad_norm)
        if math.isfinite(norm):
            return norm
        is_loss_finite = all(loss.isfinite().item() for loss in self._losses)
        if is_loss_finite and self.accelerator.scaler is not None:
            # In float16 the scaled gradient overflowed: the scaler skips this step and scales the next one less.
            return norm
        what = "gradient" if is_loss_finite else "loss"
        last = checkpoints.last(Path(self.args.output_dir))
        kept = f"the last whole checkpoint is {str(last)!r}" if last else "no checkpoint was saved before it"
        rate = f"train.learning_rate={self.args.learning_rate}"
        raise InputError(
            f"the {what} is NaN or inf at step {self.state.global_step + 1}, with {rate}: lower it, or set model.dtype "
            f"to float32 or bfloat16; {kept}."
        )

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """A process that is new to the checkpoint draws from a seed of its own, not again what others drew at first."""
        super()._load_rng_state(checkpoint)
        name = f"rng_state_{self.args.process_index}.pth" if self.args.world_size > 1 else "rng_state.pth"
        if checkpoint and not (Path(checkpoint) / name).is_file():
            seeds = self.args.seed, self.state.global_step, self.args.process_index
            set_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.world_size > 1:
            # Each process writes the state of its own random numbers.
            torch.distributed.barrier()
        if self.is_world_process_zero():
            best = self.state.best_model_checkpoint
            own = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            checkpoints.complete(own, keep=[Path(best)] if best else [])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        # Of several processes this sum at the end is one process's own.
        logs = {name: value for name, value in logs.items() if name != "train_loss" or self.args.world_size == 1}
        super().log(logs | (self.meter.read() if "loss" in logs else {}), start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Accuracy of the most probable letter on the validation packs, overall and by category."""
        metrics = {f"eval_{name}": value for name, value in letter_accuracy(self.model, self.validation).items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def train(
    model: VideoLlavaForConditionalGeneration,
    encoder: Encoder,
    train_clips: Sequence[ClipQuestions],
    validation_clips: Sequence[ClipQuestions],
    frames_of: FramesOf,
    params: TrainParams,
    work: Path,
    report: Report,
    checkpoint: Path | None = None,
) -> TrainingResult:
    """Fine-tune a LoRA on `train_clips`; checkpoints go to `work`, metrics to `report` with their step.

    frames_of: a clip id's uint8 [num_frames, size, size, 3]; checkpoint: of `work`, to resume. Raises InputError
    when a question does not fit, when the first pack is not its questions passed one by one, when the loss is NaN or
    inf and when memory runs out.
    """
    set_seed(params.seed)
    adapted = attach_lora(model, params)
    in_words, tokens = params.open_questions_per_pack, params.tokens_per_pack
    shuffle_seed = params.seed if params.shuffle_choices else None
    packs = Packs(train_clips, encoder, frames_of, params.questions_per_pack, in_words, tokens, shuffle_seed)
    validation = Packs(validation_clips, encoder, frames_of, params.questions_per_pack, tokens_per_pack=tokens)
    weight, padding = model.get_input_embeddings().weight, encoder.tokenizer.pad_token_id or 0

    def as_batch(items: Sequence[Pack]) -> dict[str, Any]:
        batch = collate(items, padding, weight.dtype, "cpu")
        return {**batch, "weights": weights(items)}

    difference = pack_difference(adapted, packs[0], packs.plan.packs[0].prefix_tokens, padding)
    check_pack(difference, adapted)
    steps = math.ceil(len(packs) / params.clips_per_step)
    meter, saver = meter_of(model, packs.plan, params.lora_rank), Saver(params.checkpoint_minutes)
    size = size_of(model.config, params.lora_rank)
    trainer = PackTrainer(
        model=adapted,
        args=_arguments(params, len(packs), work, weight),
        train_dataset=packs,
        eval_dataset=validation,
        data_collator=as_batch,
        callbacks=[meter, Reporter(report), saver, EpochKeeper(packs, steps), *_early_stopping(params)],
        validation=validation,
        meter=meter,
        clips_per_step=params.clips_per_step,
        costs=[cost.pack_flops(pack, size) for pack in packs.plan.packs],
    )
    longest = packs.plan.longest.tokens
    with (
        memory.explained(f"training on packs of up to {longest} tokens"),
        compilation.prepared(adapted, params, longest),
        saver.deferring_signals(),
    ):
        _run(trainer, checkpoint)
    # Behind the others: MLflow's pages open on the metric that was logged first.
    report(0, {"check/pack_difference": difference})
    state = trainer.state
    return TrainingResult(
        model=adapted.eval(),
        best_step=state.best_global_step or state.global_step,
        steps=state.global_step,
        validation_accuracy=float(state.best_metric or 0.0),
        dropped_subtitle_tokens=packs.plan.dropped_subtitle_tokens,
        attention=attention.name_of(adapted),
    )


def _arguments(params: TrainParams, num_packs: int, work: Path, weight: torch.Tensor) -> TrainingArguments:
    schedule = planning.schedule(num_packs, params)
    count = distributed.count()
    check_shares(params.clips_per_step, count)
    arguments = TrainingArguments(
        output_dir=str(work),
        num_train_epochs=params.epochs,
        max_steps=schedule.steps if params.max_steps else -1,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=params.clips_per_step // count,
        learning_rate=params.learning_rate,
        warmup_steps=params.warmup_fraction,
        weight_decay=params.weight_decay,
        max_grad_norm=params.max_grad_norm,
        lr_scheduler_type="linear",
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=schedule.validation_interval,
        save_steps=schedule.validation_interval,
        load_best_model_at_end=True,
        metric_for_best_model="eval_accuracy",
        greater_is_better=True,
        logging_steps=min(LOG_STEPS, schedule.steps),
        # A loss that is NaN or inf ends the training instead.
        logging_nan_inf_filter=False,
        report_to="none",
        remove_unused_columns=False,
        use_cpu=weight.device.type == "cpu",
        # The adapter's own weights are float32; their products are computed in the base's type.
        bf16=weight.dtype == torch.bfloat16,
        fp16=weight.dtype == torch.float16 and weight.device.type == "cuda",
        # Packs are made while the GPU works on those before.
        dataloader_num_workers=0 if weight.device.type == "cpu" else PACK_WORKERS,
        dataloader_pin_memory=weight.device.type != "cpu",
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        seed=params.seed,
    )
    if arguments.n_gpu > 1:
        # One process would spread each pack over all GPUs that it sees; several processes take one each.
        arguments._n_gpu = 1
    return arguments


def _early_stopping(params: TrainParams) -> list[TrainerCallback]:
    return [EarlyStoppingCallback(params.early_stopping_patience)] if params.early_stopping_patience else []


def _run(trainer: PackTrainer, checkpoint: Path | None) -> None:
    """Train, or resume a training; the best weights are loaded at the end."""
    if checkpoint is not None:
        state = TrainerState.load_from_json(str(checkpoint / STATE))
        control = state.stateful_callbacks["TrainerControl"]["args"]
        if control["should_training_stop"]:
            # Killed behind its last step. The Trainer would take one more.
            trainer.state = state
            trainer._load_best_model()
            return
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
