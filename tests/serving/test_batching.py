"""The thread at the model: what waits together is answered together, what nobody wants is not answered."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cinetune.inference import scoring
from cinetune.inference.scoring import QuestionPrompt
from cinetune.model.base import load_base
from cinetune.model.encoder import Encoder, encoder_for
from cinetune.model.lora import load_adapter
from cinetune.params import Params
from cinetune.serving.batching import BusyError, Clip, Engine, Query, ReadingCache
from cinetune.serving.server.deadline import Deadline

pytestmark = pytest.mark.serving

NUM_FRAMES = 8
# Of a machine that does other things as well.
WAIT_S = 50
CHOICES = ("on the beach", "in the city", "at the castle", "on the farm", "in the desert")


@pytest.fixture(scope="module")
def adapted(served_folder: tuple[Path, Params]) -> tuple[torch.nn.Module, Encoder]:
    root, params = served_folder
    base, tokenizer = load_base(dataclasses.replace(params.model, base=str(root / "base-model")), "cpu")
    encoder = encoder_for(base.config, tokenizer, params.frames.num_frames, params.prompt.max_subtitle_tokens)
    return load_adapter(base, root / "adapter"), encoder


@pytest.fixture
def engine(adapted: tuple[torch.nn.Module, Encoder], request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Four questions a pack; three requests at once, or as many as the test's parameter says."""
    made = Engine(*adapted, NUM_FRAMES, 4, getattr(request, "param", 3), 64 << 20)
    yield made
    made.close()


@pytest.fixture
def clips() -> tuple[Clip, Clip]:
    generator = torch.Generator().manual_seed(0)
    frames = [
        torch.randint(0, 255, (NUM_FRAMES, 64, 64, 3), generator=generator, dtype=torch.uint8).numpy() for _ in range(2)
    ]
    return Clip("a", frames[0]), Clip("b", frames[1])


class Waiting(Deadline):
    """Tells when its request stands in line: only then is its time asked for."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self.stands_in_line = threading.Event()

    def seconds_left(self) -> float | None:
        self.stands_in_line.set()
        return super().seconds_left()

    def wait(self) -> None:
        assert self.stands_in_line.wait(WAIT_S)


def question(name: str, tokens: int = 2) -> Query:
    return Query(QuestionPrompt(f"Where is {name}?", CHOICES), tokens)


class Gate:
    """Holds the model's thread at its first answer until it is opened, and tells the sizes of packs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.packs: list[int] = []
        self._reached, self._open = threading.Event(), threading.Event()
        whole = scoring.answer

        def answer(*args: Any) -> Any:
            self.packs.append(len(args[3]))
            self._reached.set()
            assert self._open.wait(WAIT_S)
            return whole(*args)

        monkeypatch.setattr(scoring, "answer", answer)

    def wait(self) -> None:
        assert self._reached.wait(WAIT_S)

    def open(self) -> None:
        self._open.set()


@pytest.mark.parametrize("engine", [20], indirect=True)
def test_requests_that_wait_on_one_clip_are_one_pack_and_get_their_own_answers(
    engine: Engine, clips: tuple[Clip, Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["Ana", "Bela", "Cora", "Dario", "Eva", "Fritz"]
    alone = [engine.ask([(clips[0], "", [question(name)])], Deadline(60))[0][0] for name in names]
    gate = Gate(monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(engine.ask, [(clips[1], "", [question("Gina")])], Deadline(60))
        gate.wait()
        waiting = []
        for name in names:
            ticket = Waiting(60)
            waiting.append(pool.submit(engine.ask, [(clips[0], "", [question(name)])], ticket))
            ticket.wait()
        gate.open()
        found = [future.result(WAIT_S)[0][0] for future in waiting]
        first.result(WAIT_S)
    assert gate.packs == [1, 4, 2], "no more than four questions make a pack here"
    assert [reply.raw for reply in found] == [reply.raw for reply in alone]
    for one, other in zip(found, alone, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_a_large_request_does_not_hold_up_the_others_to_its_end(
    engine: Engine, clips: tuple[Clip, Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        large = pool.submit(engine.ask, [(clips[0], "", [question(str(n)) for n in range(10)])], Deadline(60))
        gate.wait()
        ticket = Waiting(60)
        small = pool.submit(engine.ask, [(clips[1], "", [question("Ana")])], ticket)
        ticket.wait()
        gate.open()
        assert len(large.result(WAIT_S)[0]) == 10 and len(small.result(WAIT_S)[0]) == 1
    assert gate.packs == [4, 1, 4, 2]


def test_one_too_many_is_told_and_what_ended_meanwhile_is_not_answered(
    engine: Engine, clips: tuple[Clip, Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    group = [(clips[0], "", [question("Ana")])]
    left, late = Waiting(60), Waiting(1.0)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(engine.ask, group, Deadline(60))
        gate.wait()
        waiting = [pool.submit(engine.ask, group, ticket) for ticket in (left, late)]
        left.wait()
        late.wait()
        with pytest.raises(BusyError):
            engine.ask(group, Deadline(60))
        left.cancel()
        assert isinstance(waiting[1].exception(WAIT_S), TimeoutError)
        gate.open()
        assert first.result(WAIT_S)[0][0].raw is not None
        assert isinstance(waiting[0].exception(WAIT_S), TimeoutError)
    assert gate.packs == [1]
    assert engine.ask(group, Deadline(60))[0][0].raw is not None


def test_a_failure_costs_its_own_request_alone(
    engine: Engine, clips: tuple[Clip, Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = [(clips[0], "", [question("Ana")])]
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "answer", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
        with pytest.raises(RuntimeError, match="out of memory"):
            engine.ask(group, Deadline(60))
    assert engine.ask(group, Deadline(60))[0][0].raw is not None


def test_closing_ends_what_waits(engine: Engine, clips: tuple[Clip, Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    group = [(clips[0], "", [question("Ana")])]
    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(engine.ask, group, Deadline(60))]
        gate.wait()
        ticket = Waiting(60)
        asking.append(pool.submit(engine.ask, group, ticket))
        ticket.wait()
        closing = pool.submit(engine.close)
        # What waits is given up before the model's thread is waited for.
        assert isinstance(asking[1].exception(WAIT_S), TimeoutError)
        gate.open()
        closing.result(WAIT_S)
        assert all(isinstance(future.exception(WAIT_S), TimeoutError) for future in asking)
    with pytest.raises(BusyError):
        engine.ask(group, Deadline(60))


def test_readings_are_kept_within_a_number_of_bytes() -> None:
    cache = ReadingCache(25)
    for name in "abca":
        cache.put((name, ""), SimpleNamespace(num_bytes=10))
    assert cache.num_bytes == 20 and cache.get(("b", "")) is None and cache.get(("c", "")) is not None
    cache.put(("large", ""), SimpleNamespace(num_bytes=30))
    assert cache.num_bytes == 0
    assert ReadingCache(0).get(("a", "")) is None


def test_a_clip_is_read_once_for_many_requests(engine: Engine, clips: tuple[Clip, Clip]) -> None:
    for name in ("Ana", "Bela", "Cora"):
        engine.ask([(clips[0], "She waits.", [question(name)])], Deadline(60))
    engine.ask([(clips[0], "He waits.", [question("Ana")])], Deadline(60))
    assert (engine.counts["readings"], engine.counts["readings_found"]) == (2, 2)
