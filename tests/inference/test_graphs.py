"""Decoding behind a cache of a fixed length; what is a CUDA graph on a GPU runs as it is here."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from builders.packs import QUESTIONS, SUBTITLES, make_tiny
from cinetune.inference import graphs
from cinetune.inference.scoring import QuestionPrompt, Reading, Reply, answer, read
from cinetune.model.encoder import Encoder

pytestmark = pytest.mark.evaluation

ASKED = [QuestionPrompt(*question) for question in QUESTIONS]

Tiny = tuple[Any, Encoder, Reading]


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    model, encoder = make_tiny(0)
    frames = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    return model, encoder, read(model, encoder, SUBTITLES, frames)


@pytest.fixture(autouse=True)
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "suit", lambda device: True)


def words(tiny: Tiny, asked: list[QuestionPrompt] = ASKED, limit: int = 6) -> list[Reply]:
    model, encoder, reading = tiny
    return answer(model, encoder, reading.copy(), asked, limit)


def of(tiny: Tiny) -> Any:
    return graphs.graphs_of(tiny[0].get_base_model())


def test_a_step_is_made_once_for_packs_of_its_size(tiny: Tiny) -> None:
    first = words(tiny)
    [step] = of(tiny).steps.values()
    assert words(tiny) == first
    assert [*of(tiny).steps.values()] == [step] and of(tiny).steps.keys() == {(4, 512)}
    words(tiny, ASKED[:1])
    assert (1, 512) in of(tiny).steps


def test_weights_that_moved_or_an_adapter_that_is_switched_off_make_it_void(tiny: Tiny) -> None:
    model, _, _ = tiny
    words(tiny)
    [held] = [step for size, step in of(tiny).steps.items() if size == (4, 512)]
    head = model.get_base_model().lm_head
    old = head.weight.data
    head.weight.data = old.clone()
    words(tiny)
    moved = of(tiny).steps[4, 512]
    assert moved is not held
    with model.disable_adapter():
        words(tiny)
        assert of(tiny).steps[4, 512] is not moved
    head.weight.data = old


def test_who_comes_while_another_thread_steps_gets_the_same_words(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    right = words(tiny)
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with of(tiny).lock:
            held.set()
            go_on.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(60)
    monkeypatch.setattr(graphs.Step, "run", None)
    assert words(tiny) == right
    go_on.set()
    other.join()


def test_where_no_graph_can_be_made_one_line_says_so_and_the_words_are_the_same(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = words(tiny)

    def fail(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    with monkeypatch.context() as context:
        context.setattr(graphs.Step, "prepare", fail)
        assert [words(tiny), words(tiny)] == [right, right]
    assert [line for line in caplog.messages if "CUDA graph" in line] == [
        "answers: no CUDA graph can be made here (operation not permitted when stream is capturing): words come more "
        "slowly."
    ]
    graphs.release(tiny[0])
    assert words(tiny) == right and of(tiny).steps


def test_a_cache_that_would_be_too_long_grows_instead(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    right = words(tiny)
    monkeypatch.setattr(graphs, "LONGEST", 500)
    monkeypatch.setattr(graphs.Step, "run", None)
    assert words(tiny) == right


def test_a_cache_that_would_take_most_of_the_free_memory_grows_instead(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = words(tiny)
    graphs.release(tiny[0])
    # Of six layers with keys and values of 192 numbers in float32.
    needed = 6 * 2 * 192 * 4 * 512
    monkeypatch.setattr(graphs, "free_bytes", lambda base: 2 * needed - 1)
    assert words(tiny) == right and not of(tiny).steps and not caplog.messages
    monkeypatch.setattr(graphs, "free_bytes", lambda base: 2 * needed)
    assert words(tiny) == right and of(tiny).steps
    assert sum(part.nbytes for layer in of(tiny).held for part in layer) == needed


def test_numbers_that_are_none_from_an_earlier_pack_do_not_come_back(tiny: Tiny) -> None:
    right = words(tiny)
    with torch.inference_mode():
        for part in (part for layer in of(tiny).held for part in layer):
            part.fill_(torch.nan)
    assert words(tiny) == right
