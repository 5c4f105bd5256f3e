"""Has schemathesis try everything that `/openapi.json` says: `python -m tests.openapi`, or `make openapi`.

It makes up requests that the description allows, and others that it forbids, and checks every answer.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from penstock.core.tensors import DataType

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests")]  # as for the tests

from support import zoo  # noqa: E402
from support.servers import running_server  # noqa: E402

PROGRAM = ROOT / ".venv-openapi/bin/python"
SETTINGS = Path(__file__).with_name("schemathesis.toml")
OPERATION_EXAMPLES = 250
"""With it, about 10,000 requests."""


def repository(folder: Path) -> Path:
    """Models of many kinds; none of them fails for what its signature allows."""
    models = {
        "identity": zoo.identity(),
        "texts": zoo.identity(DataType.BYTES),
        "truths": zoo.identity(DataType.BOOL),
        "integers": zoo.identity(DataType.INT64, ("N", 1)),
        "halves": zoo.identity(DataType.FP16),
        "add": zoo.add(),
        "multi": zoo.multi_output(),
        "scale": {1: zoo.scale(1.0), 2: zoo.scale(2.0)},
        "mean": zoo.running_mean(),
        "scalar": zoo.scalar(),
        "wide": zoo.identity(DataType.FP32, ("N", "L")),
    }
    path = zoo.repository(folder, models)
    (path / "lead_scoring").symlink_to(zoo.EXAMPLES / "models/lead_scoring", target_is_directory=True)
    (path / "mean/model.toml").write_text('[sequence]\nstate = { h = "hn" }\n')
    return path


def main() -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.openapi", description=__doc__)
    parser.add_argument("-n", type=int, default=OPERATION_EXAMPLES, help="examples for each operation")
    parser.add_argument("--seed", type=int, help="makes up the same requests again")
    parser.add_argument("--phases", default="", help="those of schemathesis; all, if not given")
    arguments = parser.parse_args()
    if not PROGRAM.exists():
        print("schemathesis is not installed: make .venv-openapi/.made", file=sys.stderr)
        return 2
    seed = ["--seed", str(arguments.seed)] if arguments.seed is not None else []
    phases = ["--phases", arguments.phases] if arguments.phases else []
    with tempfile.TemporaryDirectory() as folder:
        path = repository(Path(folder) / "models")
        with running_server(path, "--http", "--http-port", "0") as server:
            words = [
                "--config-file",
                SETTINGS,
                "run",
                f"{server.http}/openapi.json",
                "-n",
                arguments.n,
                *seed,
                *phases,
            ]
            return subprocess.run(
                [PROGRAM, "-m", "schemathesis.cli", *map(str, words)],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(SETTINGS.parent)},
                check=False,
            ).returncode


if __name__ == "__main__":
    sys.exit(main())
