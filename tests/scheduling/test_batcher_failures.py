"""Only the guilty fail, and nothing that goes wrong takes an answer from somebody else."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from penstock.core.errors import DeadlineExpired, ModelFailed, QueueFull, RequestCancelled, Unavailable
from penstock.core.request import Request, Response, Run
from penstock.core.tensors import Array
from support import zoo
from support.work import (
    Caller,
    Tally,
    assert_adds_up,
    batcher,
    caller,
    echo,
    failing,
    opened,
    put_late,
    request,
    run_all,
)


def long_inputs(*values: int) -> dict[str, Array]:
    return {"x": np.array(values, np.int64).reshape(-1, 1)}


# Failures


def test_only_the_guilty_fail(tmp_path: Path) -> None:
    made, tally = batcher(opened(zoo.fails_on(100), tmp_path))
    requests = [request(long_inputs(value)) for value in (1, 100, 2, -101, 99)]
    run_all(made, *requests)
    for each, value in zip(requests, (1, None, 2, None, 99), strict=True):
        if value is None:
            assert isinstance(caller(each).error(), ModelFailed)
        else:
            assert caller(each).output().tolist() == [[value]]
    assert tally.batches == [1, 1, 1]
    assert_adds_up(tally, requests)


def test_what_the_model_says_reaches_the_caller(tmp_path: Path) -> None:
    made, _ = batcher(opened(zoo.fails_on(100), tmp_path))
    guilty = request(long_inputs(100))
    run_all(made, guilty)
    assert "out of data bounds" in str(caller(guilty).error())


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret"),
        MemoryError(),
        StopIteration(1),
        RecursionError("secret"),
        ExceptionGroup("secret", [KeyError("secret")]),
        QueueFull("secret"),
        Unspeakable(),
        OSError(5, "secret"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_odd_exceptions_of_a_backend_are_the_models_failure(error: Exception) -> None:
    made, tally = batcher(failing(error))
    requests = [request([1]), request([2])]
    run_all(made, *requests)
    for each in requests:
        failure = caller(each).error()
        assert isinstance(failure, ModelFailed)
        assert failure.__cause__ is error
        assert "secret" not in str(failure)
    assert_adds_up(tally, requests)
    assert made.running_batches == 0


@pytest.mark.parametrize("output", [None, "text"])
def test_outputs_that_cannot_be_taken_apart_fail(output: object) -> None:
    made, tally = batcher(lambda names, inputs: [output])  # type: ignore[list-item]
    requests = [request([1, 2]), request([3, 4])]
    run_all(made, *requests)
    for each in requests:
        error = caller(each).error()
        assert isinstance(error, ModelFailed)
        with pytest.raises(ModelFailed, match="could not be run"):
            raise error
    assert_adds_up(tally, requests)


@pytest.mark.parametrize("output", [np.zeros((1, 1)), np.zeros((3, 1)), np.float32(1)])
def test_outputs_of_another_length_are_those_of_each_request_alone(output: Array) -> None:
    made, tally = batcher(lambda names, inputs: [output])
    requests = [request([1, 2]), request([3, 4])]
    run_all(made, *requests)
    for each in requests:
        np.testing.assert_array_equal(caller(each).output(), output)
    assert_adds_up(tally, requests)
    assert (made.policy.batched, tally.events) == (False, ["mismatch"])
    assert_adds_up(tally, requests)


@pytest.mark.parametrize("outputs", [[], [np.zeros((2, 1)), np.zeros((2, 1))]])
@pytest.mark.parametrize("batched", [True, False])
def test_too_few_or_too_many_outputs_fail(outputs: list[Array], batched: bool) -> None:
    made, tally = batcher(lambda names, inputs: outputs, batched=batched)
    requests = [request([1]), request([2])]
    run_all(made, *requests)
    assert all(isinstance(caller(each).error(), ModelFailed) for each in requests)
    assert_adds_up(tally, requests)


def test_a_model_that_fails_only_together_answers_everybody() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if len(inputs["x"]) > 1:
            raise ModelFailed("too many")
        return echo(outputs, inputs)

    made, tally = batcher(run)
    requests = [request([value]) for value in range(5)]
    run_all(made, *requests)
    assert [caller(each).output().item() for each in requests] == [0, 1, 2, 3, 4]
    assert_adds_up(tally, requests)


def test_after_a_failed_batch_what_was_given_up_meanwhile_is_not_run() -> None:
    ran: list[float] = []

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if len(inputs["x"]) > 1:
            made.cancel(gone)
            late.deadline = time.monotonic() - 0.001  # it passes during the run, whatever that takes
            raise ModelFailed("together")
        ran.append(inputs["x"].item())
        return echo(outputs, inputs)

    made, tally = batcher(run)
    fine, gone = request([1]), request([2])
    late = request([3], deadline=time.monotonic() + 60)
    run_all(made, fine, gone, late)
    assert ran == [1.0]
    assert caller(fine).output().item() == 1.0
    assert caller(gone).results == []
    assert isinstance(caller(late).error(), DeadlineExpired)
    assert {type(error) for _, error in tally.failures} == {RequestCancelled, DeadlineExpired}
    assert tally.done == [fine]


# Replies that raise


class BrokenCaller(Caller):
    """Raises when it is handed an answer, or an error too."""

    def __init__(self, *, errors_too: bool = False) -> None:
        super().__init__()
        self._errors_too = errors_too

    def __call__(self, result: object) -> None:
        super().__call__(result)  # type: ignore[arg-type]
        if self._errors_too or isinstance(result, Response):
            raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("errors_too", [False, True])
def test_a_reply_that_raises_keeps_nobody_else_from_his_answer(errors_too: bool) -> None:
    made, tally = batcher(echo)
    broken = request([2], reply=BrokenCaller(errors_too=errors_too))
    requests = [request([1]), broken, request([3])]
    for each in requests:
        made.put(each)
    with pytest.raises(ZeroDivisionError):
        made.run_once()
    assert caller(requests[0]).output().item() == 1.0
    assert caller(requests[2]).output().item() == 3.0
    assert isinstance(caller(broken).results[-1], ModelFailed), "the caller is told, if he can be"
    assert tally.done == [requests[0], requests[2]]
    assert len(tally.failures) == 1
    assert made.running_batches == 0


def test_who_is_late_when_those_before_him_have_been_answered_gets_no_answer() -> None:
    """Writing large answers takes time, too."""

    def slowly(result: object) -> None:
        late.deadline = time.monotonic() - 0.001  # it passes meanwhile

    late, fine = request([2], deadline=time.monotonic() + 60), request([1], reply=slowly, priority=1)
    made, tally = batcher(echo)
    run_all(made, fine, late)
    assert isinstance(caller(late).error(), DeadlineExpired)
    assert tally.batches == [2]
    assert (tally.done, len(tally.failures)) == ([fine], 1)


def test_a_late_request_whose_reply_raises_keeps_the_batch_from_nothing() -> None:
    made, tally = batcher(echo)
    put_late(made, lambda deadline: request(deadline=deadline, reply=BrokenCaller(errors_too=True)))
    made.put(fine := request([1]))
    with pytest.raises(ZeroDivisionError):
        made.run_once()
    assert caller(fine).output().item() == 1.0
    assert len(tally.done) == len(tally.failures) == 1


def test_an_observer_that_raises_keeps_nobody_from_his_answer() -> None:
    class BrokenObserver(Tally):
        def batch_done(self, requests: Sequence[Request], run: Run, answered: float) -> None:
            raise ZeroDivisionError

        def failed(self, rpc: str, error: Exception, count: int = 1, seconds: float = 0.0) -> None:
            raise ZeroDivisionError

    made, _ = batcher(echo)
    made.observer = BrokenObserver()
    requests = [request(), request()]
    for each in requests:
        made.put(each)
    with pytest.raises(ZeroDivisionError):
        made.fail_all(Unavailable("stopping"))
    assert all(isinstance(caller(each).error(), Unavailable) for each in requests)
