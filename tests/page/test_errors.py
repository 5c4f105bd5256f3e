"""The recent errors: what callers were told, without values of their requests, and bounded."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest

from penstock.core.errors import InvalidRequest, ModelFailed, NotFound, QueueFull, RequestCancelled
from penstock.core.observers import SilentObserver
from penstock.observability.page.errors import MOST_ENTRIES, ErrorWatch, RecentErrors


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def errors(clock: Clock) -> RecentErrors:
    return RecentErrors(lambda error: type(error).__name__.upper(), clock)


def test_an_error_has_its_model_code_text_and_time(errors: RecentErrors, clock: Clock) -> None:
    errors.of("m", "2").failed("Predict", InvalidRequest("input x has shape [3], expected x FP32[N,2]"))
    clock.now += 5
    errors.unknown.failed("RestPredict", NotFound("no model 'x'; available: m"))
    newest, oldest = errors.entries()
    assert (newest["model"], newest["code"], newest["at"]) == ("", "NOTFOUND", 1005.0)
    assert newest["text"] == "no model 'x'; available: m"
    assert oldest == {
        "at": 1000.0, "first": 1000.0, "model": "m", "version": "2", "rpc": "Predict",
        "code": "INVALIDREQUEST", "text": "input x has shape [3], expected x FP32[N,2]", "count": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            InvalidRequest(
                'input x: the value "my secret at position 3" at position 0 is a text, expected INT64'
            ),
            "input x: the value # at position 0 is a text, expected INT64",
        ),
        (
            InvalidRequest("input x: the value 123456 at position 17 does not fit INT8"),
            "input x: the value # at position 17 does not fit INT8",
        ),
        (
            InvalidRequest("input x: the values -7 and 18446744073709551615 do not fit INT64"),
            "input x: the values # do not fit INT64",
        ),
        (
            ModelFailed("indices element out of data bounds, idx=-77"),
            "indices element out of data bounds, idx=#",
        ),
    ],
)
def test_values_of_requests_are_not_kept(errors: RecentErrors, error: InvalidRequest, text: str) -> None:
    errors.of("m", "1").failed("Predict", error)
    assert errors.entries()[0]["text"] == text


def test_a_flood_is_one_entry_and_the_newest_text_is_shown(errors: RecentErrors, clock: Clock) -> None:
    watch = errors.of("m", "1")
    for number in range(10_000):
        clock.now = 1000 + number / 100
        watch.failed("Predict", QueueFull(f"full; try again in {number} s"), 2)
    [entry] = errors.entries()
    assert entry["count"] == 20_000
    assert (entry["first"], entry["at"]) == (1000.0, 1099.0)
    assert entry["text"] == "full; try again in 9900 s"


def test_they_are_bounded_and_in_order(errors: RecentErrors, clock: Clock) -> None:
    watches = [errors.of(f"m{number}", "1") for number in range(MOST_ENTRIES + 10)]
    for watch in watches:
        clock.now += 2
        watch.failed("Predict", InvalidRequest("no"))
    assert [each["model"] for each in errors.entries()] == [
        f"m{n}" for n in reversed(range(10, MOST_ENTRIES + 10))
    ]
    clock.now += 2
    watches[20].failed("Predict", InvalidRequest("no"))  # one that is kept becomes the newest
    watches[3].failed("Predict", InvalidRequest("no"))  # one that had to make room comes anew
    first, second, *rest = errors.entries()
    assert (first["model"], first["count"], second["model"], second["count"]) == ("m3", 1, "m20", 2)
    assert len(rest) == MOST_ENTRIES - 2


def test_callers_that_are_gone_were_told_nothing(errors: RecentErrors) -> None:
    errors.of("m", "1").failed("Predict", RequestCancelled("the caller is gone"))
    assert errors.entries() == []


def test_nothing_is_called_for_requests_that_end_well() -> None:
    # An observer's method is not called if it is the inherited one; see penstock.core.observers.
    assert ErrorWatch.batch_done is SilentObserver.batch_done


def test_the_error_itself_is_not_kept(errors: RecentErrors) -> None:
    def fail() -> weakref.ref[ModelFailed]:
        error = ModelFailed("no")
        errors.of("m", "1").failed("Predict", error)
        return weakref.ref(error)

    found: Callable[[], object] = fail()
    gc.collect()
    assert found() is None
