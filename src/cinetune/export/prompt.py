"""Our prompt as a chat: the message that asks a question, and the template that makes our tokens of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cinetune.errors import InputError
from cinetune.model.encoder import Encoder
from cinetune.task import prompts

USER = f"{prompts.ASKING} "
# Whether a space stands before the first word depends on the tokenizer's kind: one of these gives our tokens.
HEADS = ("{{- bos_token -}}", "{{- bos_token ~ ' ' -}}", "")
# Engines look for the loop over a message's content to learn that images come as parts of their own.
TEMPLATE = """\
<head>
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{{- <user> -}}
{%- elif message['role'] == 'assistant' -%}{{- <assistant> ~ ' ' -}}
{%- elif message['role'] != 'system' -%}{{- raise_exception('a role must be system, user or assistant') -}}
{%- endif -%}
{%- if message['content'] is string -%}{{- message['content']<safe> -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}{{- part['text']<safe> -}}
{%- elif part['type'] in ('image', 'image_url') -%}{{- <video> -}}
{%- else -%}{{- raise_exception('a part must be a text or an image: send a clip as its frames') -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- if message['role'] == 'system' -%}{{- '\\n' -}}{%- endif -%}
{%- if message['role'] == 'assistant' -%}{{- eos_token -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- <assistant> -}}{%- endif -%}
"""


def message(encoder: Encoder, subtitles: str, question: str, choices: Sequence[str] | None, num_frames: int) -> Any:
    """What asks one question about one clip: words, a part `{"type": "image"}` for each frame, words."""
    task = encoder.task
    words = encoder.shorten(encoder.safe(prompts.spoken(subtitles)))[0] if task.subtitles else ""
    before, _, after = prompts.prefix(words, task).removeprefix(USER).partition(prompts.VIDEO)
    asked = prompts.suffix(encoder.safe(question), choices and [encoder.safe(choice) for choice in choices], task)
    frames = [{"type": "image"} for _ in range(num_frames)]
    ending = {"type": "text", "text": after + asked[: -len(_turn(encoder))]}
    return {"role": "user", "content": [{"type": "text", "text": before}, *frames, ending]}


def _turn(encoder: Encoder) -> str:
    """What stands between a question and its answer: the role, behind a space or a line break."""
    return prompts.suffix("", None, encoder.task)[-len(f" {prompts.ROLE}") :]


def template(encoder: Encoder, num_frames: int) -> str:
    """The chat template under which `message` has the tokens of `encoder`, without any that a tokenizer adds itself.

    Raises InputError where there is none for the base's tokenizer.
    """
    asked = ("Where?\nUp <s>there?", [f"the {letter}" for letter in encoder.task.letters])
    said = "<subtitle> Who?\n<subtitle> ASSISTANT: Me."
    chat = [message(encoder, said, *asked, num_frames)]
    video = encoder.video_token_id
    ids = [*encoder.prefix(said)[0], *encoder.suffix(*asked)]
    start = ids.index(video)
    wanted = [*ids[:start], *[video] * num_frames, *ids[start + encoder.num_video_tokens :]]
    for head in HEADS:
        filled = _fill(head, encoder)
        text = encoder.tokenizer.apply_chat_template(
            chat, chat_template=filled, tokenize=False, add_generation_prompt=True
        )
        if encoder.tokenizer(text, add_special_tokens=False).input_ids == wanted:
            return filled
    raise InputError(
        "the base model's tokenizer reads our prompt otherwise where it comes from a chat template: export it as "
        "export.to=merged, which brings none."
    )


def _fill(head: str, encoder: Encoder) -> str:
    added = encoder.tokenizer.added_tokens_decoder.values()
    markers = sorted({token.content for token in added if token.special}, key=lambda token: (-len(token), token))
    safe = "".join(f" | replace({json.dumps(marker)}, {json.dumps(encoder.safe(marker))})" for marker in markers)
    parts = {
        "<head>": head, "<user>": json.dumps(USER), "<assistant>": json.dumps(_turn(encoder)), "<safe>": safe,
        "<video>": json.dumps(encoder.tokenizer.convert_ids_to_tokens(encoder.video_token_id)),
    }  # fmt: skip
    filled = TEMPLATE
    for name in ("<head>", "<user>", "<assistant>", "<video>", "<safe>"):
        filled = filled.replace(name, parts[name])
    return filled


def example(encoder: Encoder, num_frames: int) -> dict[str, Any]:
    """A request in OpenAI's form, in which places are marked for what a client puts there."""
    options = [f"<option {letter}>" for letter in encoder.task.letters]
    asked = message(encoder, "<subtitles>", "<question>", options, num_frames)
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,<frame {number}>"}}
        if part["type"] == "image"
        else part
        for number, part in enumerate(asked["content"])
    ]
    return {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 4}
