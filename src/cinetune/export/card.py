"""The model card of an export: what it is, what it is proven to be, how it is asked, under which licence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from cinetune.data import licences
from cinetune.export.source import Source
from cinetune.serving import model_card
from cinetune.task import data_card

# As the hub writes them.
IDENTIFIERS = {"CC-BY-NC-SA-4.0": "cc-by-nc-sa-4.0", licences.OWN: "apache-2.0"}
WHAT = {
    "llava": "A fine-tuned Video-LLaVA as LLaVA-1.5: its adapter is merged, and a clip's frames are its images.",
    "merged": "A fine-tuned Video-LLaVA whose adapter is merged into its weights.",
    "adapter": "A LoRA adapter for Video-LLaVA, in PEFT's layout.",
}
ASKING = {
    "llava": """\
Send the {frames} frames of a clip as images, between the words before and after them, as `example.json` does; the
template in `chat_template.jinja` makes the prompt of the training of it. At temperature 0:

    vllm serve <this folder> --limit-mm-per-prompt '{{"image": {frames}}}'
    python -m sglang.launch_server --model-path <this folder>

Texts of others should not hold `USER:` or `ASSISTANT:`; the tokens that stand for something are taken apart by the
template.""",
    "merged": """\
`VideoLlavaForConditionalGeneration.from_pretrained` opens it. `prompt.json` holds the prompt of the training; the
video's token is repeated for each patch and class token of its {frames} frames.""",
    "adapter": """\
`PeftModel.from_pretrained(base, <this folder>)` puts it beside the base `{base}`. `prompt.json` holds the prompt of the
training.""",
}


def text(source: Source, proven: Mapping[str, Any]) -> str:
    """proven: what proof.json says."""
    params, to = source.params, str(proven["to"])
    head = {"license": IDENTIFIERS.get(source.licence, "other"), "pipeline_tag": "video-text-to-text"}
    library = {"library_name": "peft" if to == "adapter" else "transformers"}
    base = {"base_model": params.model.base} if "/" in params.model.base else {}
    front = yaml.safe_dump(head | library | base, sort_keys=False)
    asking = ASKING[to].format(frames=params.frames.num_frames, base=params.model.base)
    good = f"\n\nBefore the export: accuracy {model_card.accuracy(source.metrics)}." if source.metrics else ""
    task = source.adapter.task
    terms = f"\n\n{task.terms}" if task.terms and source.licence == task.licence else ""
    rows = "\n".join(f"| {name} | `{value}` |" for name, value in proven["made_from"].items() if value)
    files = "\n".join(f"| {name} | `{digest}` |" for name, digest in proven["files"].items())
    return f"""---
{front}---

# Video-LLaVA fine-tuned on {task.subject}

{WHAT[to]} Weights are in {proven["dtype"]}.{good}

## Proof

Opened by transformers {proven["opened_with"]["transformers"]} alone, it was asked {proven["questions"]} questions
about {proven["clips"]} clips. Logits differ from those of the model that it was made of by
{proven["largest_difference"]:.2g} at most, where a rounding step is {proven["rounding_step"]:.2g}; the most probable
letter was the same for {proven["same_letters"]} questions{_quantised(proven)}. `proof.json` has all of it.

## Asking it

A clip is seen as {params.frames.num_frames} frames of {params.frames.size} pixels a side (settings
`{proven["made_from"]["frames_identity"]}`, policy `{params.frames.policy}`).

{asking}

## Data and licence

Trained on {data_card.name_of(params.data)}. Licence: {source.licence}.{terms}

## Hashes

| made from | |
| --- | --- |
{rows}

| file | sha256 |
| --- | --- |
{files}
"""


def _quantised(proven: Mapping[str, Any]) -> str:
    """Letters of a model that is served with quantised weights may differ from those of whole ones."""
    quantization = proven["served_quantization"]
    return "" if quantization == "none" else f", asked of that model as it is served, in {quantization}"
