"""A peer: Triton as nvidia-pytriton ships it, with its Python backend and a model that calls ONNX Runtime.

    python benchmarks/programs/triton_peer.py MODELS FOLDER DELAY_MICROSECONDS

Runs in nvidia-pytriton's environment, prints its address and becomes tritonserver, which may still be loading
then. It batches up to 32 rows, waiting up to the delay. MODELS is the file of one model, served as
"tiny_mlp", or a folder of models, NAME/1/model.onnx. Their first axes are their rows. Triton's repository and
the backend are put in FOLDER.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import sysconfig
from pathlib import Path
from typing import Any

import onnxruntime
import pytriton

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 32
{tensors}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
dynamic_batching {{ max_queue_delay_microseconds: {delay} }}
parameters {{ key: "path" value: {{ string_value: "{path}" }} }}
"""
TYPES = {"float": "FP32", "int64": "INT64", "string": "STRING"}
HERE = Path(__file__).parent
TRITON = Path(pytriton.__file__).parent / "tritonserver"
ONLY_GRPC = ("--allow-http=false", "--allow-metrics=false", "--log-info=false", "--log-warning=false")


def main() -> None:
    path, folder, delay = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    folder.mkdir()
    backends, models = _backends(folder), folder / "models"
    files = (
        {each.name: each / "1/model.onnx" for each in path.iterdir()} if path.is_dir() else {"tiny_mlp": path}
    )
    for name, file in files.items():
        _model(models / name, file, delay)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    print(f"gRPC        127.0.0.1:{port}", flush=True)
    command = [str(TRITON / "bin/tritonserver"), f"--model-repository={models}", *ONLY_GRPC]
    command += [f"--backend-directory={backends}", f"--grpc-port={port}", "--grpc-address=127.0.0.1"]
    os.execve(command[0], command, _environment())


def _backends(folder: Path) -> Path:
    """The Python backend with the stub process for this version of Python."""
    shutil.copytree(TRITON / "backends/python", folder / "backends/python")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = TRITON / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, folder / "backends/python")
    return folder / "backends"


def _model(folder: Path, path: Path, delay: int) -> None:
    """The folder of a model in Triton's repository."""
    (folder / "1").mkdir(parents=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    tensors = [*map(_input, session.get_inputs()), *map(_output, session.get_outputs())]
    config = CONFIG.format(name=folder.name, tensors="\n".join(tensors), delay=delay, path=path)
    (folder / "config.pbtxt").write_text(config)
    shutil.copy(HERE / "triton_model.py", folder / "1/model.py")


def _input(spec: Any) -> str:
    return f"input [ {{ {_tensor(spec)} dims: {spec.shape[1:]} }} ]"


def _output(spec: Any) -> str:
    # Triton has no tensors of one row and no further axis.
    dims = f"dims: {spec.shape[1:]}" if spec.shape[1:] else "dims: [ 1 ] reshape: { shape: [ ] }"
    return f"output [ {{ {_tensor(spec)} {dims} }} ]"


def _tensor(spec: Any) -> str:
    datatype = TYPES[spec.type.removeprefix("tensor(").removesuffix(")")]
    return f'name: "{spec.name}" data_type: TYPE_{datatype}'


def _environment() -> dict[str, str]:
    """The backend's process needs this Python's library, and finds packages by the python3 on PATH."""
    libraries = [*TRITON.parents[1].glob("nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    }


if __name__ == "__main__":
    main()
