"""Open an export and answer with it: a program of its own, which knows transformers and nothing of this package.

    python -I opener.py <folder with job.json>

Takes job.json and the clips beside it, as proof.py writes them; makes results.json and logits.npy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer, LlavaForConditionalGeneration, VideoLlavaForConditionalGeneration


def main(work: Path) -> None:
    job = json.loads((work / "job.json").read_text(encoding="utf-8"))
    kind, folder, device = job["to"], job["folder"], job["device"]
    dtype = getattr(torch, job["dtype"])
    if kind == "llava":
        model: Any = LlavaForConditionalGeneration.from_pretrained(folder, dtype="auto")
        processor = AutoProcessor.from_pretrained(folder)
        tokenizer, read = processor.tokenizer, chat_reader(processor, work)
    else:
        model = VideoLlavaForConditionalGeneration.from_pretrained(job["base"] or folder, dtype=dtype)
        tokenizer, read = AutoTokenizer.from_pretrained(job["base"] or folder), ids_reader(work)
    if kind == "adapter":
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False)
    if model.dtype != dtype:
        raise SystemExit(f"the export opens in {model.dtype}, not in {dtype}")
    model = model.to(device).eval()
    results, logits = [], []
    for case in job["cases"]:
        inputs, difference = read(case)
        ids = inputs["input_ids"][0].tolist()
        given = {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in inputs.items()
        }
        made = model.generate(
            **given,
            max_new_tokens=job["max_new_tokens"],
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        logits.append(made.logits[0][0].float().cpu().numpy())
        words = tokenizer.decode(made.sequences[0, len(ids) :], skip_special_tokens=True).strip()
        results.append({"words": words, "ids": ids, "pixel_difference": difference})
    np.save(work / "logits.npy", np.stack(logits))
    opened = {
        "answers": results,
        "packages": sorted({name.partition(".")[0] for name in sys.modules}),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "tokenizers")},
    }
    (work / "results.json").write_text(json.dumps(opened), encoding="utf-8")


Reader = Callable[[dict[str, Any]], tuple[dict[str, torch.Tensor], float]]


def chat_reader(processor: Any, work: Path) -> Reader:
    """A chat whose images are the frames, and how far its pixels are from those that were expected.

    The model is given the expected ones: a rounding step in a pixel would hide what its weights are.
    """

    def read(case: dict[str, Any]) -> tuple[dict[str, torch.Tensor], float]:
        frames = iter(np.load(work / f"{case['clip']}.frames.npy"))
        content = [
            part | {"image": Image.fromarray(next(frames))} if part["type"] == "image" else part
            for part in case["message"]["content"]
        ]
        inputs = processor.apply_chat_template(
            [case["message"] | {"content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        expected = torch.from_numpy(np.load(work / f"{case['clip']}.pixels.npy"))
        difference = (inputs["pixel_values"].float() - expected).abs().max().item()
        return {**inputs, "pixel_values": expected}, difference

    return read


def ids_reader(work: Path) -> Reader:
    """Token ids and pixels as they are given."""

    def read(case: dict[str, Any]) -> tuple[dict[str, torch.Tensor], float]:
        pixels = torch.from_numpy(np.load(work / f"{case['clip']}.pixels.npy"))
        ids = torch.tensor([case["ids"]])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values_videos": pixels[None]}, 0.0

    return read


if __name__ == "__main__":
    main(Path(sys.argv[1]))
