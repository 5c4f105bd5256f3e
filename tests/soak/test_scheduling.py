"""The schedulers under many more made-up requests than the tests of every day take."""

from __future__ import annotations

import pytest
from hypothesis import given

from scheduling import test_chaos, test_chaos_sequences
from scheduling.test_chaos import _little_to_collect  # noqa: F401 - a fixture that every test of this module uses
from support.examples import many

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


@many
@given(test_chaos.REQUESTS, test_chaos.HOUSES)
def test_every_request_ends_once(numbers: list[int], house: test_chaos.House) -> None:
    test_chaos.every_request_ends_once(numbers, house)


@many
@given(test_chaos_sequences.STEPS, test_chaos_sequences.HOUSES)
def test_every_step_ends_once(numbers: list[int], house: test_chaos_sequences.House) -> None:
    test_chaos_sequences.every_step_ends_once(numbers, house)
