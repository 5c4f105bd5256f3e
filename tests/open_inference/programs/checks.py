"""Runs every check of tritonclient against a server, and prints what came of each, as JSON.

    python tests/open_inference/programs/checks.py HOST:PORT [CHECK ...]

Runs in an environment with tritonclient. A check is a function `check_...` of a module `checks_...`, given
the server's address; those that are coroutines run in an event loop of their own. Prints a message for each
check, "" where all is well.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 60.0


def found() -> dict[str, Callable[[str], Any]]:
    """The checks by name, in the order in which they are written."""
    here = Path(__file__).parent
    modules = [importlib.import_module(path.stem) for path in sorted(here.glob("checks_*.py"))]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if name.startswith("check_") and value.__module__ == module.__name__
    }


def outcome(check: Callable[[str], Any], target: str) -> str:
    try:
        if inspect.iscoroutinefunction(check):
            asyncio.run(asyncio.wait_for(check(target), SECONDS))
        else:
            check(target)
    except BaseException:  # whatever it is, the other checks go on
        return traceback.format_exc()
    return ""


def main() -> None:
    checks = found()
    target, names = sys.argv[1], sys.argv[2:] or list(checks)
    print(json.dumps({name: outcome(checks[name], target) for name in names}))


if __name__ == "__main__":
    main()
    # Not by the interpreter's own end: gRPC's threads have been seen to keep a finished client alive.
    sys.stdout.flush()
    os._exit(0)
