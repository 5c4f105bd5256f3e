"""Threads share one pool of free memory, unless the operator chooses otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys, threading
from penstock.core import allocator
if sys.argv[1] == "one":
    allocator.use_one_arena()
barrier = threading.Barrier(4)
def work():
    kept = bytearray(100_000)
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
for each in threads: each.start()
for each in threads: each.join()
allocator.give_back()
ctypes.CDLL(None).malloc_stats()
"""


def arenas(which: str, **chosen: str) -> int:
    """How many pools a process with some threads has, as glibc itself prints it."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PROGRAM, which]
    done = subprocess.run(
        command, env={**env, **chosen}, capture_output=True, text=True, timeout=60, check=True
    )
    return sum(line.startswith("Arena ") for line in done.stderr.splitlines())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_threads_share_one_pool() -> None:
    assert arenas("usual") > 1
    assert arenas("one") == 1
    assert arenas("one", MALLOC_ARENA_MAX="2") == 2
    assert arenas("one", GLIBC_TUNABLES="glibc.malloc.arena_max=2") == 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize(
    "chosen", [{"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, {"MALLOC_MMAP_THRESHOLD_": "1000000"}]
)
def test_what_the_operator_has_not_set_is_set(chosen: dict[str, str]) -> None:
    assert arenas("usual", **chosen) > 1
    assert arenas("one", **chosen) == 1
