"""Divides the cores of the machine among the workers."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.config import Config


def shares(cores: int, processes: int) -> list[int]:
    """The cores of each worker: as even as possible, and at least 1."""
    return [max(cores // processes + (number < cores % processes), 1) for number in range(processes)]


def described(cores: int, each: Sequence[int], config: Config) -> str:
    """The split and its reason, in one line.

    Args:
        cores: how many there are.
        each: the share of each worker.
        config: may set the number of threads of each worker, independent of its share.
    """
    count = len(each)
    if config.runners.threads or config.runtime.intra_op_threads:
        asked = f"runners.threads = {config.runners.threads}"
        asked += f" and runtime.intra_op_threads = {config.runtime.intra_op_threads}"
        return f"{count} on {_cores(cores)}, each with {asked}, as the settings ask"
    if count > cores:
        return (
            f"{count} on {_cores(cores)}, which they share: 1 runner thread each; "
            "fewer processes have the same throughput"
        )
    least, most = min(each), max(each)
    share = _cores(least) if least == most else f"{least} or {_cores(most)}"
    return (
        f"{count} on {_cores(cores)}: {share} each for its runner threads and ONNX Runtime, "
        "so that they do not compete"
    )


def _cores(number: int) -> str:
    return f"{number} core{'' if number == 1 else 's'}"
