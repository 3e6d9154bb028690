"""The thread at the model: what waits together is answered together, what nobody wants is not answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cinetune import scoring
from cinetune.engine import BusyError, Clip, Engine, Query, ReadingCache
from cinetune.scoring import Asked
from cinetune.tickets import Ticket

pytestmark = pytest.mark.serving

CHOICES = ("on the beach", "in the city", "at the castle", "on the farm", "in the desert")


@pytest.fixture
def engine(served: Any) -> Iterator[Engine]:
    """A second engine on the model of the served one, which stands still meanwhile."""
    inner = served.unwrap_python_model().service
    other = inner.engine
    made = Engine(other._model, other._encoder, inner.defaults.num_frames, 4, 3, 64 << 20)
    yield made
    made.close()


@pytest.fixture
def clips() -> tuple[Clip, Clip]:
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randint(0, 255, (8, 64, 64, 3), generator=generator, dtype=torch.uint8).numpy() for _ in range(2)]
    return Clip("a", frames[0]), Clip("b", frames[1])


def question(name: str, tokens: int = 2) -> Query:
    return Query(Asked(f"Where is {name}?", CHOICES), tokens)


class Gate:
    """Holds the model's thread at its first answer until it is opened, and tells the sizes of packs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.packs: list[int] = []
        self._reached, self._open = threading.Event(), threading.Event()
        whole = scoring.answer

        def answer(*args: Any) -> Any:
            self.packs.append(len(args[3]))
            self._reached.set()
            assert self._open.wait(20)
            return whole(*args)

        monkeypatch.setattr(scoring, "answer", answer)

    def wait(self) -> None:
        assert self._reached.wait(20)

    def open(self) -> None:
        self._open.set()


def test_requests_that_wait_on_one_clip_are_one_pack_and_get_their_own_answers(
    engine: Engine, clips: tuple[Clip, Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine._most_waiting = 20
    names = ["Ana", "Bela", "Cora", "Dario", "Eva", "Fritz"]
    alone = [engine.ask([(clips[0], "", [question(name)])], Ticket(60))[0][0] for name in names]
    gate = Gate(monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(engine.ask, [(clips[1], "", [question("Gina")])], Ticket(60))
        gate.wait()
        waiting = [pool.submit(engine.ask, [(clips[0], "", [question(name)])], Ticket(60)) for name in names]
        while len(engine._waiting) < len(names):
            time.sleep(0.01)
        gate.open()
        found = [future.result()[0][0] for future in waiting]
        first.result()
    assert gate.packs == [1, 4, 2], "no more than four questions make a pack here"
    assert [reply.raw for reply in found] == [reply.raw for reply in alone]
    for one, other in zip(found, alone, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_a_large_request_does_not_hold_up_the_others_to_its_end(
    engine: Engine, clips: tuple[Clip, Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        large = pool.submit(engine.ask, [(clips[0], "", [question(str(n)) for n in range(10)])], Ticket(60))
        gate.wait()
        small = pool.submit(engine.ask, [(clips[1], "", [question("Ana")])], Ticket(60))
        while len(engine._waiting) < 3:
            time.sleep(0.01)
        gate.open()
        assert len(large.result()[0]) == 10 and len(small.result()[0]) == 1
    assert gate.packs == [4, 1, 4, 2]


def test_one_too_many_is_told_and_what_ended_meanwhile_is_not_answered(
    engine: Engine, clips: tuple[Clip, Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    group = [(clips[0], "", [question("Ana")])]
    left = Ticket(60)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(engine.ask, group, Ticket(60))
        gate.wait()
        waiting = [pool.submit(engine.ask, group, ticket) for ticket in (left, Ticket(0.05))]
        while len(engine._waiting) < 2:
            time.sleep(0.01)
        with pytest.raises(BusyError):
            engine.ask(group, Ticket(60))
        left.cancel()
        time.sleep(0.1)
        gate.open()
        assert first.result()[0][0].raw is not None
        for future in waiting:
            with pytest.raises(TimeoutError):
                future.result()
    assert gate.packs == [1]
    assert engine.ask(group, Ticket(60))[0][0].raw is not None


def test_a_failure_costs_its_own_request_alone(
    engine: Engine, clips: tuple[Clip, Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = [(clips[0], "", [question("Ana")])]
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "answer", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
        with pytest.raises(RuntimeError, match="out of memory"):
            engine.ask(group, Ticket(60))
    assert engine.ask(group, Ticket(60))[0][0].raw is not None


def test_closing_ends_what_waits(engine: Engine, clips: tuple[Clip, Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    group = [(clips[0], "", [question("Ana")])]
    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(engine.ask, group, Ticket(60))]
        gate.wait()
        asking.append(pool.submit(engine.ask, group, Ticket(60)))
        while not engine._waiting:
            time.sleep(0.01)
        closing = pool.submit(engine.close)
        while engine._waiting:
            time.sleep(0.01)
        gate.open()
        closing.result()
        assert all(isinstance(future.exception(), TimeoutError) for future in asking)
    with pytest.raises(BusyError):
        engine.ask(group, Ticket(60))


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
        engine.ask([(clips[0], "She waits.", [question(name)])], Ticket(60))
    engine.ask([(clips[0], "He waits.", [question("Ana")])], Ticket(60))
    assert (engine.counts["readings"], engine.counts["readings_found"]) == (2, 2)
