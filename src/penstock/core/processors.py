"""How many processors this process may keep busy: the smaller of its affinity and its cgroups' quotas.

A container's CPU limit is a quota of time, not a set of processors: `sched_getaffinity` does not show it.
Where threads use up the quota, the kernel stops all of them until the next period begins.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

ROOT = Path("/")
PERIOD = 100_000
"""Microseconds; the kernel's default period, for a quota without a period."""


@dataclass(frozen=True, slots=True)
class Processors:
    """The processors that a process may use.

    Attributes:
        count: how many threads can make progress at the same time; at least 1.
        of: how many the machine has.
        cause: why `count` is smaller than `of`; "" if it is not.
    """

    count: int
    of: int
    cause: str = ""

    def __str__(self) -> str:
        """In words, such as "2 of 64: cgroup quota 1.5"."""
        return f"{self.count} of {self.of}: {self.cause}" if self.cause else str(self.count)


def available(root: Path = ROOT) -> Processors:
    """The processors that this process may use.

    The affinity is that of now, the quota that of the first call: every session asks, and a repository may
    have thousands of models.

    Args:
        root: where `proc` and the mounted cgroups are found.
    """
    machine = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    return limited(machine, allowed, _first_quota() if root == ROOT else quota(root))


@lru_cache(maxsize=1)
def _first_quota() -> float | None:
    return quota()


def limited(machine: int, allowed: int, quota: float | None) -> Processors:
    """The smaller of the affinity and the quota, a fraction of a processor rounded up.

    Args:
        machine: how many processors there are.
        allowed: how many of them the process may run on.
        quota: how many processors' time it gets; None for no limit.
    """
    machine = max(machine, allowed)
    rounded = allowed if quota is None else max(int(-(-quota // 1)), 1)
    if quota is not None and rounded < allowed:
        return Processors(rounded, machine, f"cgroup quota {quota:.3g}")
    return Processors(allowed, machine, "CPU affinity" if allowed < machine else "")


def quota(root: Path = ROOT) -> float | None:
    """The processors' time that the cgroups of this process allow: the smallest limit on the way up.

    Limits of cgroups above what a container can see are not known in it; container runtimes set theirs on
    the container's own cgroup.

    Args:
        root: as in `available`.

    Returns:
        How many processors' worth; None where there is no limit, or no cgroups.
    """
    limits = (limit for folder in _folders(root) for limit in (_version_2(folder), _version_1(folder)))
    return min((limit for limit in limits if limit is not None), default=None)


def _folders(root: Path) -> Iterator[Path]:
    """The folders of the cgroups of this process that may limit its time, from its own one upward."""
    groups = {kind: path for kind, path in map(_group, _lines(root / "proc/self/cgroup")) if kind}
    for line in _lines(root / "proc/self/mountinfo"):
        # 36 35 98:0 /root /mount/point options... - type source options
        fields, _, rest = line.partition(" - ")
        before, after = fields.split(), rest.split()
        if len(before) < 5 or not after:
            continue
        kind = after[0] if after[0] == "cgroup2" or "cpu" in after[-1].split(",") else ""
        if kind in groups:
            mount = root / _unescaped(before[4]).lstrip("/")
            yield from _upward(mount, _inside(groups[kind], _unescaped(before[3])))


def _group(line: str) -> tuple[str, str]:
    """The kind of a line of /proc/self/cgroup, as `mountinfo` names file systems, and the cgroup's path."""
    number, _, rest = line.partition(":")
    controllers, _, path = rest.partition(":")
    if number == "0" and not controllers:
        return "cgroup2", path
    return ("cgroup" if "cpu" in controllers.split(",") else ""), path


def _inside(path: str, mounted: str) -> PurePosixPath:
    """A cgroup's path relative to the mounted cgroup; the mounted one itself if it lies elsewhere."""
    group = PurePosixPath(path)
    if ".." in group.parts or not group.is_relative_to(mounted):
        return PurePosixPath()
    return group.relative_to(mounted)


def _upward(mount: Path, inside: PurePosixPath) -> Iterator[Path]:
    yield mount / inside
    for parent in inside.parents:
        yield mount / parent


def _version_2(folder: Path) -> float | None:
    """The limit in `cpu.max`, which says "max 100000" or "150000 100000"."""
    limit, _, period = _text(folder / "cpu.max").partition(" ")
    return _ratio(limit, period or str(PERIOD))


def _version_1(folder: Path) -> float | None:
    """The limit in two files of microseconds; a quota of -1 means no limit."""
    return _ratio(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us") or str(PERIOD))


def _ratio(limit: str, period: str) -> float | None:
    try:
        return int(limit) / int(period) if int(limit) > 0 and int(period) > 0 else None
    except ValueError:
        return None


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()


def _text(path: Path) -> str:
    """A file's text; "" if the file does not exist or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _unescaped(path: str) -> str:
    """A path as it is; `mountinfo` has blanks in it as octal numbers."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(escape, character)
    return path
