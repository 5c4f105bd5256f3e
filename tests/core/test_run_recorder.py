"""Which models were being run is known after the process that ran them has died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from penstock.core.run_recorder import ENTRIES, RunRecorder, create_page, running_models

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory files are Linux's")

CHILD = """
import os, sys
from penstock.core.run_recorder import RunRecorder

recorder = RunRecorder(int(sys.argv[1]))
idle, busy, done = (recorder.counter(f"{name} version 1") for name in ("idle", "busy", "done"))
done.value = 1
busy.value = 2
done.value = 0
os.kill(os.getpid(), int(sys.argv[2]))
"""


@pytest.fixture
def page() -> Iterator[int]:
    descriptor = create_page()
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize(
    "number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL], ids=lambda each: each.name
)
def test_what_a_process_ran_when_a_signal_ended_it(page: int, number: signal.Signals) -> None:
    command = [sys.executable, "-c", CHILD, str(page), str(int(number))]
    child = subprocess.run(command, pass_fds=[page], check=False)
    assert child.returncode == -number
    assert running_models(page) == ["busy version 1"]


def test_a_page_nothing_was_written_to(page: int) -> None:
    assert running_models(page) == []


def test_loaded_models_are_not_running(page: int) -> None:
    RunRecorder(page).counter("m version 1")
    assert running_models(page) == []


def test_two_copies_of_one_version_are_counted_apart_and_named_once(page: int) -> None:
    recorder = RunRecorder(page)
    first, second = recorder.counter("m version 1"), recorder.counter("m version 1")
    first.value = second.value = 1
    assert running_models(page) == ["m version 1"]
    first.value = 0
    assert running_models(page) == ["m version 1"]


def test_a_forgotten_entry_serves_another_model(page: int) -> None:
    recorder = RunRecorder(page)
    for number in range(ENTRIES + 1):
        recorder.counter(f"m version {number}")
        recorder.forget(f"m version {number}")
    recorder.forget("never seen")
    recorder.counter("n version 1").value = 1
    assert running_models(page) == ["n version 1"]


def test_models_beyond_the_page_are_run_without_being_recorded(page: int) -> None:
    recorder = RunRecorder(page)
    counters = [recorder.counter(f"m version {number}") for number in range(ENTRIES + 1)]
    counters[-1].value = 1
    assert running_models(page) == []
    counters[-2].value = 1
    assert running_models(page) == [f"m version {ENTRIES - 1}"]


def test_a_long_name_is_cut(page: int) -> None:
    RunRecorder(page).counter("é" * 500).value = 1
    assert running_models(page) == ["é" * 124]


def test_without_a_page_it_counts_in_memory_of_its_own() -> None:
    counter = RunRecorder().counter("m version 1")
    counter.value = 1
    assert counter.value == 1
