"""Batches that take longer than their requests alone are given up, as real requests show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from typing_extensions import override

from penstock.backends.onnx import OnnxBackend
from penstock.config import Config
from penstock.core.errors import ModelFailed
from penstock.core.tensors import Array
from penstock.models.registry import ModelRegistry
from penstock.models.repository import scan
from penstock.scheduling.live_worth import FEWEST, NOTED, LiveWorth
from penstock.scheduling.verification import Verifier
from support import zoo
from support.verified import House
from support.work import Tally, request, run_all

ROW_SECONDS = 0.01


class Timed(House):
    """A model whose runs take `ROW_SECONDS` a row, and `more` times as much if rows run together."""

    def __init__(self, more: float, timed: bool = True, row_seconds: float = ROW_SECONDS) -> None:
        self.more, self.row_seconds = more, row_seconds
        super().__init__(self._take, timed=timed)

    def _take(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        rows = len(inputs["x"])
        self.clock.wait(self.row_seconds * rows * (self.more if rows > 1 else 1.0))
        return [inputs["x"] for _ in outputs]

    def verified(self, times: int, rows: int = 2) -> None:
        """Has batches answered and verified."""
        for _ in range(times):
            self.ask(*range(rows))
            for _ in range(2 * rows):  # a run uses all the time there is at once
                self.verify()
            assert self.kept == 0


def test_batches_that_take_longer_are_given_up() -> None:
    house = Timed(1.3)
    house.verified(FEWEST - 1)
    assert house.model.batching.enabled
    house.verified(1)
    assert house.tally.events == ["verified"] * FEWEST + ["dearer"]
    reason = "seen on live requests: together they take 1.30 times as long as one by one"
    assert (house.model.batching.enabled, house.model.batching.reason) == (False, reason)
    house.tally.batches.clear()
    house.ask(1, 2, 3)
    assert house.tally.batches == [1, 1, 1]
    assert house.kept == 0, "nothing is left to verify"


@pytest.mark.parametrize(
    "house",
    [Timed(0.7), Timed(1.02), Timed(1.3, timed=False), Timed(1.3, row_seconds=0.0001)],
    ids=["cheaper", "about the same", "asked for", "so quick that the work around runs counts"],
)
def test_others_stay_batched(house: Timed) -> None:
    house.verified(2 * NOTED)
    assert house.model.batching.enabled
    assert house.tally.events == ["verified"] * 2 * NOTED


def test_what_is_dearer_now_counts_and_not_what_was_long_ago() -> None:
    house = Timed(0.5)
    house.verified(2 * NOTED)
    house.more = 1.5
    house.verified(NOTED)
    assert not house.model.batching.enabled


def test_a_few_slow_runs_decide_nothing() -> None:
    worth = LiveWorth()
    for index in range(4 * NOTED):
        assert worth.note(0.5 if index % 4 == 0 else 0.015, [0.01, 0.01]) == ""


class Crowded(Timed):
    """On a machine with other work: a thread that has slept runs at full speed for a while, then at half."""

    FULL_SPEED_SECONDS = 0.008

    def __init__(self, more: float) -> None:
        self._ran = 0.0
        super().__init__(more, row_seconds=0.001)

    @override
    def _take(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        before = self.clock.now
        found = super()._take(outputs, inputs)
        took = self.clock.now - before
        self._ran += took
        self.clock.wait(min(max(self._ran - self.FULL_SPEED_SECONDS, 0.0), took))
        return found

    @override
    def verify(self, is_idle: Callable[[], bool] | None = None) -> None:
        self._ran = 0.0
        super().verify(is_idle)


def test_what_runs_last_on_a_crowded_machine_is_not_always_the_batch() -> None:
    house = Crowded(0.9)
    house.verified(2 * NOTED, rows=8)
    assert house.model.batching.enabled
    house = Crowded(3.0)
    house.verified(2 * NOTED, rows=8)
    assert not house.model.batching.enabled


def test_what_cannot_be_verified_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was tried again for ever, before the batches of all other models."""
    house = Timed(1.3)
    for broken in (2, 1):
        house.ask(1, 2)

        def run(outputs: Sequence[str], inputs: Mapping[str, Array], broken: int = broken) -> Sequence[Array]:
            if len(inputs["x"]) == broken:
                raise MemoryError
            return [inputs["x"] for _ in outputs]

        monkeypatch.setattr(house.backend, "_run", run)
        with pytest.raises(MemoryError):
            house.verify()
        assert house.kept == 0
        monkeypatch.undo()


def test_a_batch_whose_timing_is_interrupted_first_is_verified_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = Timed(1.3)
    house.verified(1)
    house.ask(1, 2)
    runs = []

    def interrupted(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        runs.append(len(inputs["x"]))
        if len(inputs["x"]) > 1:
            house.verifier.interrupt()
            raise ModelFailed("the run was ended")
        return [inputs["x"] for _ in outputs]

    monkeypatch.setattr(house.backend, "_run", interrupted)
    for _ in range(3):
        house.verify()
    assert runs == [2, 1, 1]
    assert (house.tally.events, house.kept) == (["verified"] * 2, 0)


def test_a_batch_that_fails_when_it_is_timed_is_verified_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = Timed(1.3)
    for number in (1, 2):
        house.ask(1, 2)

        def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
            if len(inputs["x"]) > 1:
                raise ModelFailed("no memory")
            return [inputs["x"] for _ in outputs]

        monkeypatch.setattr(house.backend, "_run", run)
        for _ in range(3):
            house.verify()
        assert (house.tally.events, house.kept) == (["verified"] * number, 0)
        monkeypatch.undo()


def test_a_batch_of_one_request_says_nothing() -> None:
    house = Timed(1.3)
    for _ in range(2 * NOTED):
        house.ask([1, 2])
        house.verify()
    assert house.model.batching.enabled


def test_a_run_of_a_request_ends_the_timing_and_the_batch_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compared counts; how long it takes together is seen with another batch."""
    house = Timed(1.3)
    house.ask(1, 2)
    runs = []

    def interrupted(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        runs.append(len(inputs["x"]))
        if len(inputs["x"]) > 1:
            house.verifier.interrupt()  # as the batcher does when a request comes
            raise ModelFailed("the run was ended")
        return [inputs["x"] for _ in outputs]

    monkeypatch.setattr(house.backend, "_run", interrupted)
    house.verify()
    assert runs == [1, 1, 2]
    assert (house.tally.events, house.kept) == (["verified"], 0)


@pytest.mark.parametrize(
    ("settings", "events"),
    [("", ["verified", "dearer"]), ("[batching]\nenabled = true\n", ["verified"])],
)
def test_what_settings_ask_for_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, events: list[str]
) -> None:
    path = zoo.repository(tmp_path, {"m": zoo.identity()})
    (path / "m" / "model.toml").write_text(settings)
    tally, verifier = Tally(), Verifier()
    registry = ModelRegistry(
        Config(),
        OnnxBackend,
        lambda _: tally,
        verifier=verifier,  # type: ignore[arg-type]
    )
    registry.load_all(scan(path), lambda _: None)
    (model,) = registry.all()
    monkeypatch.setattr(LiveWorth, "note", lambda *_: "dearer, says the test")
    monkeypatch.setattr(verifier, "seconds_left", lambda: 1.0)
    inputs = {"x": np.ones((1, 3), np.float32)}
    run_all(model.batcher, *(request(inputs, rows=1) for _ in range(3)))
    verifier.look(lambda: True)
    verifier.work()
    assert tally.events == events
    registry.close()
