"""An engine that is not ours serves an export to OpenAI's client, and gives our answers."""

from __future__ import annotations

import base64
import io
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image

from builders import trainings
from builders.exports import CLIPS, make_source, write_tiny_base
from builders.tokenizers import tokenizer_of
from cinetune.export import exporting, prompt
from cinetune.model.base import load_base
from cinetune.model.encoder import encoder_of

pytestmark = [pytest.mark.serving, pytest.mark.slow]

STARTS_WITHIN_S = 300


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Any]:
    """The folder, its proof, and our encoder."""
    root = tmp_path_factory.mktemp("engine")
    write_tiny_base(root)
    source = make_source(root)
    chosen = trainings.PARAMS.override("export", {"questions": 100}).export
    proven = exporting.export(source, chosen, CLIPS, trainings.frames_of, root / "llava")
    config = load_base(source.params.model, "cpu")[0].config
    return root / "llava", proven, encoder_of(source.params, config, tokenizer_of(), source.adapter.task)


@pytest.fixture(scope="module")
def address(exported: tuple[Path, dict[str, Any], Any]) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "import sys; from transformers.cli.transformers import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "serve", str(exported[0]), "--port", str(port), "--device", "cpu"]
    variables = os.environ | {"HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            yield wait_for(f"http://127.0.0.1:{port}", server)
        finally:
            server.terminate()


def wait_for(root: str, server: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until:
        assert server.poll() is None, "the engine ended"
        try:
            with urllib.request.urlopen(f"{root}/health", timeout=5):
                return f"{root}/v1"
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the engine did not start")


def picture(frame: np.ndarray) -> dict[str, Any]:
    content = io.BytesIO()
    Image.fromarray(frame).save(content, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def test_openai_client_gets_our_answers(exported: tuple[Path, dict[str, Any], Any], address: str) -> None:
    folder, proven, encoder = exported
    words = {answer["question_id"]: answer["words"] for answer in proven["answers"]}
    client = openai.OpenAI(base_url=address, api_key="none")
    for clip in CLIPS:
        frames = trainings.frames_of(clip.clip_id)
        for question in clip.questions:
            asked = prompt.message(encoder, clip.subtitles, question.text, question.choices, len(frames))
            pictures = iter(frames)
            content = [picture(next(pictures)) if part["type"] == "image" else part for part in asked["content"]]
            made = client.chat.completions.create(
                model=str(folder), messages=[{"role": "user", "content": content}], temperature=0, max_tokens=3
            )
            ours = [*encoder.prefix(clip.subtitles)[0], *encoder.suffix(question.text, question.choices)]
            assert made.choices[0].message.content.strip() == words[question.question_id]
            assert made.usage.prompt_tokens == len(ours)
