"""How many processors a process may use: affinity, and quotas of cgroups in made-up and real trees."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from penstock.core import processors
from penstock.core.processors import available, limited, quota

V2 = "29 23 0:26 {root} {mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
V1 = "33 28 0:30 {root} {mount} rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
UNLIMITED = {"cpu.max": "max 100000\n"}


def v1(quota: int, period: int = 100_000) -> dict[str, str]:
    return {"cpu.cfs_quota_us": f"{quota}\n", "cpu.cfs_period_us": f"{period}\n"}


def tree(root: Path, group: str, mounts: str, files: dict[str, dict[str, str]]) -> Path:
    """A file system with what the kernel says of the cgroups of a process.

    Args:
        root: where it is made.
        group: /proc/self/cgroup.
        mounts: /proc/self/mountinfo.
        files: by folder, the files in it.
    """
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group)
    (root / "proc/self/mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + mounts)
    for folder, texts in files.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (root / folder / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"": {}, "a": {"cpu.max": "150000 100000\n"}, "a/b": UNLIMITED}, 1.5),
        ({"": {}, "a": UNLIMITED, "a/b": {"cpu.max": "50000 100000\n"}}, 0.5),
        ({"": {}, "a": {"cpu.max": "100000 100000\n"}, "a/b": {"cpu.max": "400000 100000\n"}}, 1.0),
        ({"": {}, "a": {"cpu.max": "400000 100000\n"}, "a/b": {"cpu.max": "30000 10000\n"}}, 3.0),
        ({"": {}, "a": UNLIMITED, "a/b": UNLIMITED}, None),
        ({"": {}, "a": {"cpu.max": "200000 100000\n"}}, 2.0),  # what lies below cannot be seen
        ({"": {}, "a": {}, "a/b": {"cpu.max": "200000\n"}}, 2.0),
        ({"": {}, "a": {}, "a/b": {"cpu.max": "soon\n"}}, None),
        ({"": {}, "a": {}, "a/b": {"cpu.max": ""}}, None),
        ({"": {}, "a/b": {}, "a/c": {"cpu.max": "100000 100000\n"}}, None),  # another one's
    ],
)
def test_version_2(tmp_path: Path, files: dict[str, dict[str, str]], expected: float | None) -> None:
    mounts = V2.format(root="/", mount="/sys/fs/cgroup")
    files = {f"sys/fs/cgroup/{folder}": texts for folder, texts in files.items()}
    assert quota(tree(tmp_path, "0::/a/b\n", mounts, files)) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a": v1(-1), "a/b": v1(150_000)}, 1.5),
        ({"a": v1(200_000), "a/b": v1(400_000)}, 2.0),
        ({"a": v1(-1), "a/b": v1(-1)}, None),
        ({"a": v1(0), "a/b": v1(25_000, 50_000)}, 0.5),
        ({"a/b": {"cpu.cfs_quota_us": "100000\n"}}, 1.0),
        ({"a/b": v1(100_000, 0)}, None),
    ],
)
def test_version_1(tmp_path: Path, files: dict[str, dict[str, str]], expected: float | None) -> None:
    group = "9:name=systemd:/x\n4:memory:/elsewhere\n2:cpu,cpuacct:/a/b\n"
    mounts = V1.format(root="/", mount="/sys/fs/cgroup/cpu,cpuacct")
    files = {f"sys/fs/cgroup/cpu,cpuacct/{folder}": texts for folder, texts in files.items()}
    assert quota(tree(tmp_path, group, mounts, files)) == expected


def test_both_versions_at_once(tmp_path: Path) -> None:
    """A hybrid: the processor is still governed by version 1, the rest by version 2."""
    group = "2:cpu:/a\n1:cpuset:/\n0::/a\n"
    mounts = V1.format(root="/", mount="/sys/fs/cgroup/cpu") + V2.format(
        root="/", mount="/sys/fs/cgroup/unified"
    )
    files = {"sys/fs/cgroup/cpu/a": v1(150_000), "sys/fs/cgroup/unified/a": {}}
    assert quota(tree(tmp_path, group, mounts, files)) == 1.5


@pytest.mark.parametrize(
    ("group", "root"),
    [
        ("/", "/"),  # a namespace of its own
        ("/", "/../../a"),
        ("/../b", "/"),  # moved out of its namespace: what is mounted is all that it can see
        ("/docker/1f", "/docker/1f"),  # no namespace, and its own group mounted
        ("/docker/1f", "/docker/1f/init"),
    ],
)
def test_what_a_container_sees(tmp_path: Path, group: str, root: str) -> None:
    mounts = V2.format(root=root, mount="/sys/fs/cgroup")
    files = {"sys/fs/cgroup": {"cpu.max": "150000 100000\n"}}
    assert quota(tree(tmp_path, f"0::{group}\n", mounts, files)) == 1.5


def test_blanks_in_a_mount(tmp_path: Path) -> None:
    mounts = V2.format(root="/", mount="/my\\040groups")
    files = {"my groups/a b": {"cpu.max": "100000 100000\n"}}
    assert quota(tree(tmp_path, "0::/a b\n", mounts, files)) == 1.0


@pytest.mark.parametrize("mounts", ["", "nonsense\n", "1 2 3 - cgroup2\n", " - \n", "- - - - - - -\n"])
@pytest.mark.parametrize("group", ["", "nonsense\n", "0::/a\n", ":::\n"])
def test_no_cgroups(tmp_path: Path, group: str, mounts: str) -> None:
    assert quota(tree(tmp_path, group, mounts, {})) is None


def test_no_proc(tmp_path: Path) -> None:
    assert quota(tmp_path) is None
    assert available(tmp_path).count >= 1


@pytest.mark.parametrize(
    ("machine", "allowed", "limit", "count", "words"),
    [
        (64, 64, 1.5, 2, "2 of 64: cgroup quota 1.5"),
        (64, 64, 0.25, 1, "1 of 64: cgroup quota 0.25"),
        (64, 64, 2.0, 2, "2 of 64: cgroup quota 2"),
        (64, 2, 3.0, 2, "2 of 64: CPU affinity"),
        (64, 4, 3.5, 4, "4 of 64: CPU affinity"),
        (64, 4, 2.5, 3, "3 of 64: cgroup quota 2.5"),
        (64, 64, 200.0, 64, "64"),
        (64, 64, None, 64, "64"),
        (64, 8, None, 8, "8 of 64: CPU affinity"),
    ],
)
def test_the_smaller_counts(machine: int, allowed: int, limit: float | None, count: int, words: str) -> None:
    found = limited(machine, allowed, limit)
    assert (found.count, str(found)) == (count, words)


@pytest.fixture
def real() -> Iterator[Path]:
    """A cgroup of this machine with a quota of half a processor; gone again afterwards."""
    name = f"penstock-test-{os.getpid()}"
    for folder in (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")):
        group = folder / name
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / "cpu.cfs_quota_us").exists():
                (group / "cpu.cfs_quota_us").write_text("50000")
            elif (group / "cpu.max").exists():
                (group / "cpu.max").write_text("50000 100000")
            else:
                continue
            yield group
            return
        except OSError:
            continue
        finally:
            with suppress(OSError):
                group.rmdir()
    pytest.skip("no cgroup with a quota can be made here: that takes root, and a kernel that has them")


def test_the_files_of_cgroups_are_read_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = available()
    monkeypatch.setattr(processors, "_text", None)  # calling it would fail
    assert available() == first


def test_a_real_quota(real: Path) -> None:
    code = f"""if True:
        import os, pathlib
        pathlib.Path({str(real / "cgroup.procs")!r}).write_text(str(os.getpid()))
        from penstock.core.processors import available
        print(available())
    """
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    machine = os.cpu_count() or 1
    assert said == (f"1 of {machine}: cgroup quota 0.5\n" if machine > 1 else "1\n")
