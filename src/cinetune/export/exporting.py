"""Write an export: weights, what engines need beside them, the card and the proof; whole or not at all.

<export>/  llava: config.json, model*.safetensors, tokenizer, processor_config.json, chat_template.jinja,
                  generation_config.json, example.json (a request in OpenAI's form)
           merged: the same files of a Video-LLaVA, the processor's as the base has them
           adapter: adapter_config.json, adapter_model.safetensors
           README.md (model card), proof.json, prompt.json
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cinetune import provenance
from cinetune.artifacts import PROMPT
from cinetune.errors import InputError
from cinetune.export import card, llava, merging, prompt, proof
from cinetune.export.source import Source
from cinetune.files import file_digest, files_of, whole_folder, write_json
from cinetune.frames.sampling import FrameSettings, identity
from cinetune.model.base import DTYPES, check_frame_size, default_device, load_base
from cinetune.model.encoder import Encoder, encoder_of
from cinetune.model.lora import load_adapter, save_adapter
from cinetune.params import ExportParams
from cinetune.task import description, prompts
from cinetune.task.description import CINEPILE
from cinetune.task.questions import ClipQuestions

PROOF, CARD, EXAMPLE = "proof.json", "README.md", "example.json"
EXPORTS = Path("outputs/export")


def target_of(chosen: ExportParams) -> Path:
    """The folder to fill. Raises InputError where one is there that is no export."""
    target = Path(chosen.out) if chosen.out else EXPORTS / chosen.to
    if target.exists() and not (target / PROOF).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"{str(target)!r} is there and is no export: name another folder as export.out, or remove it.")
    return target


def export(
    source: Source,
    chosen: ExportParams,
    clips: Sequence[ClipQuestions],
    frames_of: Callable[[str], np.ndarray],
    target: Path,
) -> dict[str, Any]:
    """Fill `target`; what its proof.json says.

    clips: whose questions prove it; frames_of: uint8 [num_frames, size, size, 3] by clip id. Raises InputError where
    the model cannot be loaded or merged, or the export opened, and for an export that is not the same model.
    """
    params, device = source.params, default_device()
    words = params.evaluate.max_new_tokens
    cases = proof.choose_cases(clips, chosen.questions, frames_of)
    if not cases:
        raise InputError("there is no clip with frames to prove the export on: run the frames stage.")
    is_quantised = params.model.quantization != "none"
    adapted, encoder = _load(source, is_quantised, device)
    replies = proof.served_replies(adapted, encoder, cases, words)
    if is_quantised:
        # Never merged into: rounding to so few values would change the adapter's work.
        adapted, encoder = _load(source, False, device)
    dtype = DTYPES[params.model.dtype]
    packed = proof.packed_logits(adapted, encoder, cases)
    with whole_folder(target) as folder:
        if chosen.to == "adapter":
            _write_adapter(adapted, source, folder)
            ours = proof.single_logits(adapted, encoder, cases)
        else:
            model = merging.merge(adapted)
            ours = proof.single_logits(model, encoder, cases)
            proof.check_merged(packed, ours, dtype)
            _write_model(model, encoder, source, chosen, folder)
            del model
        del adapted
        for path in folder.glob("*.safetensors"):
            # They are written for their owner alone; an engine may run as another user.
            shutil.copymode(folder / PROMPT, path)
        # A GPU has room for one of the two.
        torch.cuda.empty_cache()
        base = source.base if chosen.to == "adapter" else None
        opened = proof.open_export(folder, chosen.to, base, encoder, cases, dtype, device, words)
        proof.check(ours, opened, dtype)
        letters = proof.letters_of(opened.logits, encoder, cases)
        served = [reply.letter for reply in replies]
        proven = {
            "to": chosen.to,
            "dtype": params.model.dtype,
            "device": device,
            "questions": len(letters),
            "clips": len(cases),
            "largest_logit": float(np.abs(ours).max()),
            "largest_difference": proof.difference(ours, opened.logits),
            "rounding_step": proof.rounding_step(ours, dtype),
            "largest_pixel_difference": opened.pixel_difference,
            # Of packs with the adapter beside the weights, as the model is evaluated and served.
            "largest_difference_from_packs": proof.difference(packed, opened.logits),
            "served_quantization": params.model.quantization,
            "same_letters": sum(one == other for one, other in zip(served, letters, strict=True)),
            "same_words": sum(r.raw == said for r, said in zip(replies, opened.words, strict=True)),
            "made_from": made_from(source),
            "opened_with": dict(opened.versions),
            "files": {name: file_digest(path) for name, path in files_of(folder)},
            "answers": [
                {"question_id": question_id, "ours": one, "export": other, "words": said}
                for question_id, one, other, said in zip(_ids(cases), served, letters, opened.words, strict=True)
            ],
        }
        write_json(folder / PROOF, proven)
        (folder / CARD).write_text(card.text(source, proven), encoding="utf-8")
    return proven


def made_from(source: Source) -> dict[str, str]:
    """Hashes of all that decides the export's answers."""
    params = source.params
    return {
        "adapter_digest": source.adapter.digest,
        "base": params.model.base,
        "base_revision": params.model.revision,
        "prompt_hash": prompts.template_hash(source.adapter.task),
        "frames_identity": identity(FrameSettings.of(params.frames)),
        "source_digest": provenance.source_digest(),
        **{name: value for name, value in source.origin.items() if name.startswith(("git.", "dvc."))},
    }


def _ids(cases: Sequence[proof.Case]) -> list[str]:
    return [question.question_id for case in cases for question in case.questions]


def _load(source: Source, is_quantised: bool, device: str) -> tuple[Any, Encoder]:
    params = source.params
    base, tokenizer = load_base(source.model(is_quantised), device)
    check_frame_size(base.config, params.frames.size)
    return load_adapter(base, source.adapter.folder), encoder_of(params, base.config, tokenizer, source.adapter.task)


def _write_adapter(adapted: Any, source: Source, folder: Path) -> None:
    """In PEFT's layout, under the name that its base has for others."""
    adapted.peft_config["default"].base_model_name_or_path = source.params.model.base
    save_adapter(adapted, folder)
    _write_task(source, folder)


def _write_task(source: Source, folder: Path) -> None:
    """The prompt of the training, and the task that it was of where that is not CinePile's."""
    write_json(folder / PROMPT, prompts.template(source.adapter.task))
    if source.adapter.task != CINEPILE:
        description.write(folder, source.adapter.task)


def _write_model(model: Any, encoder: Encoder, source: Source, chosen: ExportParams, folder: Path) -> None:
    config, num_frames = model.config, source.params.frames.num_frames
    model.generation_config.update(do_sample=False, max_new_tokens=source.params.evaluate.max_new_tokens)
    shards = f"{chosen.shard_mb}MB"
    if chosen.to == "llava":
        images = llava.as_llava(model)
        images.generation_config = model.generation_config
        images.save_pretrained(folder, max_shard_size=shards)
        llava.processor_of(config, encoder, num_frames).save_pretrained(folder)
        write_json(folder / EXAMPLE, prompt.example(encoder, num_frames))
    else:
        model.save_pretrained(folder, max_shard_size=shards)
        encoder.tokenizer.save_pretrained(folder)
        for path in sorted(source.base.glob("*processor_config.json")):
            shutil.copy(path, folder / path.name)
    _write_task(source, folder)
