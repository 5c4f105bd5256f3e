"""The real Triton, with models like those of the zoo: what `transcript.py` was first run against.

    .venv-bench/triton/bin/python tests/open_inference/programs/triton.py FOLDER [FLAG ...]

Runs in the environment of the benchmarks' peer (`make .venv-bench/triton/.made`), puts models and backend in
FOLDER, prints its address and becomes tritonserver, which may still be loading then.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import sysconfig
from pathlib import Path

import pytriton

TRITON = Path(pytriton.__file__).parent / "tritonserver"
MODEL = Path(__file__).with_name("triton_model.py")
FLAGS = ("--allow-http=false", "--allow-metrics=false", "--log-info=false", "--log-warning=false")
CONFIG = """
name: "{name}"
backend: "python"
{inputs}{outputs}{more}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "do" value: {{ string_value: "{do}" }} }}
"""
BATCHED = "max_batch_size: 32 dynamic_batching { }"
QUEUE = """default_queue_policy {
  max_queue_size: 3 default_timeout_microseconds: 5000000 allow_timeout_override: true
}"""
MODELS = {
    "identity": (["x FP32 3"], ["y FP32 3"], "same", BATCHED),
    "identity_bytes": (["x STRING 3"], ["y STRING 3"], "same", BATCHED),
    "integers": (["x INT64 1"], ["y INT64 1"], "same", BATCHED),
    "scale": (["x FP32 3"], ["y FP32 3"], "scale", f"{BATCHED} version_policy {{ all {{ }} }}"),
    "add": (["a FP32 3", "b FP32 3"], ["y FP32 3"], "add", BATCHED),
    "multi": (["x FP32 3"], ["double FP32 3", "total FP32", "positive BOOL 3"], "multi", BATCHED),
    "alone": (["x FP32 -1,3"], ["y FP32 -1,3"], "same", ""),
    "deep": (["x FP32 2,3"], ["y FP32 2,3"], "same", BATCHED),
    "labelled": (["x FP32 3"], ["y FP32 3"], "same", BATCHED),
    "fails": (["x INT64 1"], ["y INT64 1"], "fail", BATCHED),
    "slow": (["x FP32 1"], ["y FP32 1"], "sleep", f"max_batch_size: 1 dynamic_batching {{ {QUEUE} }}"),
}
VERSIONS = {"scale": ("1", "2", "10")}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir()
    for name in MODELS:
        write_model(folder / "models" / name, name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    print(f"gRPC        127.0.0.1:{port}", flush=True)
    command = [str(TRITON / "bin/tritonserver"), f"--model-repository={folder / 'models'}", *FLAGS]
    command += [f"--backend-directory={backends(folder)}", f"--grpc-port={port}", "--grpc-address=127.0.0.1"]
    os.execve(command[0], [*command, *sys.argv[2:]], environment())


def write_model(folder: Path, name: str) -> None:
    inputs, outputs, do, more = MODELS[name]
    for version in VERSIONS.get(name, "1"):
        (folder / version).mkdir(parents=True)
        shutil.copy(MODEL, folder / version / "model.py")
    labels = {"y": "labels.txt"} if name == "labelled" else {}
    (folder / "labels.txt").write_text("ant\nbee\ncat\n")
    text = CONFIG.format(
        name=name,
        do=do,
        more=more,
        inputs="".join(f"input [ {{ {declared(each)} }} ]\n" for each in inputs),
        outputs="".join(f"output [ {{ {declared(each, labels)} }} ]\n" for each in outputs),
    )
    (folder / "config.pbtxt").write_text(text)


def declared(text: str, labels: dict[str, str] | None = None) -> str:
    name, datatype, *dims = text.split()
    # A tensor of one number a row has no dims, which Triton takes only as a reshape of [1].
    shape = f"dims: [ {dims[0]} ]" if dims else "dims: [ 1 ] reshape { shape: [ ] }"
    label = f' label_filename: "{labels[name]}"' if labels and name in labels else ""
    return f'name: "{name}" data_type: TYPE_{datatype} {shape}{label}'


def backends(folder: Path) -> Path:
    """The Python backend with the stub process for this version of Python."""
    shutil.copytree(TRITON / "backends/python", folder / "backends/python")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(
        TRITON / "python_backend_stubs" / version / "triton_python_backend_stub", folder / "backends/python"
    )
    return folder / "backends"


def environment() -> dict[str, str]:
    """The backend's process needs this Python's library, and finds packages by the python3 on PATH."""
    libraries = [*TRITON.parents[1].glob("nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    }


if __name__ == "__main__":
    main()
