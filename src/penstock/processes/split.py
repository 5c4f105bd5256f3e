"""How the cores of the machine are shared out among the workers."""

from __future__ import annotations

import os
from collections.abc import Sequence

from penstock.config import Config


def shares(cores: int, processes: int) -> list[int]:
    """The cores of each worker: as even as can be, and none without one."""
    return [max(cores // processes + (number < cores % processes), 1) for number in range(processes)]


def available_cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def described(cores: int, each: Sequence[int], config: Config) -> str:
    """The split and its reason, in one line.

    Args:
        cores: how many there are.
        each: the share of each worker.
        config: may say how many threads each worker has, whatever its share.
    """
    count = len(each)
    if config.runners.threads or config.runtime.intra_op_threads:
        asked = f"runners.threads = {config.runners.threads}"
        asked += f" and runtime.intra_op_threads = {config.runtime.intra_op_threads}"
        return f"{count} on {_cores(cores)}, each with {asked}, as the settings ask"
    if count > cores:
        return f"{count} on {_cores(cores)}, which they share: 1 runner thread each; fewer would do as much"
    least, most = min(each), max(each)
    share = _cores(least) if least == most else f"{least} or {_cores(most)}"
    return (
        f"{count} on {_cores(cores)}: {share} each for its runner threads and ONNX Runtime, "
        "so that they do not compete"
    )


def _cores(number: int) -> str:
    return f"{number} core{'' if number == 1 else 's'}"
