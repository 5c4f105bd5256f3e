"""Starts commands of Penstock as `subprocess` starts them, by a fork where that makes no difference."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import forked

CONSOLE_SCRIPT = Path(sys.executable).with_name("penstock")
"""The console script of the environment that the tests run in."""
may_fork = False
"""Whether processes may be forked: where tests start hundreds of them, and not where they are measured."""


def popen(
    command: Sequence[Any], *, env: Mapping[str, str] | None = None, fresh: bool = False, **how: Any
) -> subprocess.Popen[Any] | forked.ForkedProcess:
    """A process of the console script.

    Args:
        command: the command line.
        env: all of its variables; by default those of this process.
        fresh: whether it must be started by the script itself, and not by a fork: see `support.forked`.
        how: the further arguments of `subprocess.Popen`.
    """
    words = [str(each) for each in command]
    environment = dict(os.environ) if env is None else env
    is_ours = words[0] == str(CONSOLE_SCRIPT)
    if may_fork and not fresh and is_ours and forked.server.fits(environment):
        return forked.ForkedProcess(words, environment, **how)
    return subprocess.Popen(words, env=environment, **how)


def run(
    command: Sequence[Any],
    *,
    input: str | None = None,
    timeout: float | None = None,
    **how: Any,
) -> subprocess.CompletedProcess[Any]:
    """Runs the console script to its end, as `subprocess.run` with `capture_output` does."""
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    if input is not None:
        how["stdin"] = subprocess.PIPE
    process = popen(command, **{**pipes, **how})
    with process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, int(process.returncode or 0), out, err)
