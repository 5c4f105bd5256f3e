"""Every request gets exactly one reply, whatever its batch does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from penstock.core.errors import ModelFailed, QueueFull, Unavailable
from penstock.core.request import Response
from penstock.core.tensors import Array
from support import zoo
from support.work import (
    Caller,
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

# Batches


def test_requests_run_together_and_everybody_gets_his_own_rows(tmp_path: Path) -> None:
    made, tally = batcher(opened(zoo.scale(3, ("N", 1)), tmp_path))
    requests = [request([1]), request([2, 3]), request([]), request([4])]
    run_all(made, *requests)
    assert [caller(each).output().ravel().tolist() for each in requests] == [[3], [6, 9], [], [12]]
    assert tally.batches == [4]
    assert_adds_up(tally, requests)


def test_all_of_a_batch_share_one_run() -> None:
    made, _ = batcher(echo)
    requests = [request([1]), request([2])]
    run_all(made, *requests)
    first, second = (caller(each).results[0] for each in requests)
    assert isinstance(first, Response)
    assert isinstance(second, Response)
    assert first.run is second.run
    assert first.run.rows == 2
    assert requests[1].arrived <= first.run.started <= first.run.finished <= time.monotonic()


def test_batches_stay_within_the_most_rows() -> None:
    made, tally = batcher(echo, max_rows=4)
    run_all(made, *(request([0] * rows) for rows in (3, 2, 2, 9, 1)))
    assert tally.batches == [3, 4, 9, 1]


def test_an_unbatched_model_runs_every_request_alone(tmp_path: Path) -> None:
    made, tally = batcher(opened(zoo.centred_rows(), tmp_path), batched=False)
    rows = np.array([[1, 2, 3], [3, 4, 5]], np.float32)
    requests = [request({"x": rows}, rows=1) for _ in range(3)]
    run_all(made, *requests)
    for each in requests:
        assert caller(each).output().tolist() == [[-1, -1, -1], [1, 1, 1]]
    assert tally.batches == [1, 1, 1]


def test_an_unbatched_model_may_give_any_number_of_rows() -> None:
    made, tally = batcher(lambda names, inputs: [np.zeros((7, 2))], batched=False)
    requests = [request(rows=1)]
    run_all(made, *requests)
    assert caller(requests[0]).output().shape == (7, 2)
    assert_adds_up(tally, requests)


def test_the_model_gives_what_somebody_wants_and_everybody_gets_what_he_wants(tmp_path: Path) -> None:
    asked = []
    backend = opened(zoo.multi_output(), tmp_path)

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        asked.append(list(outputs))
        return backend.run(outputs, inputs)

    made, _ = batcher(run)
    rows = {"x": np.array([[1, 2, 3]], np.float32)}
    requests = [request(rows, outputs=("double",)), request(rows, outputs=("total", "double"))]
    run_all(made, *requests)
    assert asked == [["double", "total"]]
    results = [caller(each).results[0] for each in requests]
    assert [set(each.outputs) for each in results if isinstance(each, Response)] == [
        {"double"},
        {"double", "total"},
    ]
    assert caller(requests[1]).output("total").tolist() == [6.0]


def test_a_full_queue_of_low_priority_refuses_nobody_of_higher() -> None:
    made, tally = batcher(echo, queue_rows=3, max_rows=1)
    low = [request([value], priority=-1) for value in range(3)]
    urgent, another = request([8], priority=1), request([9], priority=-1)
    for each in (*low, urgent):
        made.put(each)
    with pytest.raises(QueueFull):
        made.put(another)
    while made.run_once():
        pass
    answered = [urgent, *low[:2]]
    assert tally.done == answered
    assert [each for each in (*low, urgent) if each not in tally.done] == [low[2]]
    (error,) = caller(low[2]).results
    assert isinstance(error, QueueFull)
    assert str(error) == (
        "removed from the queue for a request of higher priority: "
        "the queue is full: 3 rows are waiting, 1 more arrived, the limit is 3"
    )
    assert error.retry_after_seconds
    assert_adds_up(tally, [*low, urgent])


def test_nothing_to_run() -> None:
    made, tally = batcher(echo)
    assert not made.run_once()
    assert tally.batches == []
    assert made.running_batches == 0


# Streams


def test_a_stream_is_flushed_once_after_the_whole_batch() -> None:
    events: list[str] = []

    class Stream:
        def flush(self) -> None:
            events.append("flush")

    class Item(Caller):
        def __call__(self, result: object) -> Callable[[], None]:
            super().__call__(result)  # type: ignore[arg-type]
            events.append("reply")
            return stream.flush

    stream = Stream()
    made, _ = batcher(echo)
    run_all(made, *(request(reply=Item()) for _ in range(3)), request())
    assert events == ["reply", "reply", "reply", "flush"]


def test_every_stream_of_a_batch_is_flushed() -> None:
    flushed: list[int] = []
    flushes = [lambda: flushed.append(1), lambda: flushed.append(2)]
    made, _ = batcher(echo)
    run_all(made, *(request(reply=Caller(flushes[index % 2])) for index in range(6)))
    assert sorted(flushed) == [1, 2]


def test_a_flush_that_raises_keeps_no_other_stream_waiting() -> None:
    flushed = []

    def broken() -> None:
        raise ZeroDivisionError

    made, tally = batcher(echo)
    for flush in (broken, lambda: flushed.append(1)):
        made.put(request(reply=Caller(flush)))
    with pytest.raises(ZeroDivisionError):
        made.run_once()
    assert flushed == [1]
    assert len(tally.done) == 2


@pytest.mark.parametrize("how", ["late at the pop", "expire", "fail_all", "model fails"])
def test_errors_too_are_flushed_once_a_stream(how: str) -> None:
    flushed = []

    def flush() -> None:
        flushed.append(1)

    made, tally = batcher(failing(ModelFailed("no")) if how == "model fails" else echo, max_rows=3)
    late = how in ("late at the pop", "expire")
    if late:
        requests = put_late(made, *[lambda deadline: request(reply=Caller(flush), deadline=deadline)] * 3)
    else:
        requests = [request(reply=Caller(flush)) for _ in range(3)]
        for each in requests:
            made.put(each)
    if how == "expire":
        made.expire(time.monotonic())
    elif how == "fail_all":
        made.fail_all(Unavailable("stopping"))
    else:
        made.run_once()
    assert all(caller(each).error() for each in requests)
    # Run apart, every request is a batch of its own.
    assert flushed == ([1] * 3 if how == "model fails" else [1])
    assert_adds_up(tally, requests)
