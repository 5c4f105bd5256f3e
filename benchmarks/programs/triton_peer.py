"""A peer: Triton as nvidia-pytriton ships it, with its Python backend and a model that calls ONNX Runtime.

    python benchmarks/programs/triton_peer.py MODEL_FILE FOLDER DELAY_MICROSECONDS

Runs in nvidia-pytriton's environment, prints its address and becomes tritonserver, which may still be loading
then. It batches up to 32 rows, waiting up to the delay. The repository and the backend are put in FOLDER.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import sysconfig
from pathlib import Path

import pytriton

CONFIG = """
name: "tiny_mlp"
backend: "python"
max_batch_size: 32
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 64 ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 8 ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
dynamic_batching {{ max_queue_delay_microseconds: {delay} }}
parameters {{ key: "path" value: {{ string_value: "{path}" }} }}
"""
HERE = Path(__file__).parent
TRITON = Path(pytriton.__file__).parent / "tritonserver"
ONLY_GRPC = ("--allow-http=false", "--allow-metrics=false", "--log-info=false", "--log-warning=false")


def main() -> None:
    path, folder, delay = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    folder.mkdir()
    backends, models = _backends(folder), _models(folder, path, delay)
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


def _models(folder: Path, path: Path, delay: int) -> Path:
    model = folder / "models/tiny_mlp"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(CONFIG.format(delay=delay, path=path))
    shutil.copy(HERE / "triton_model.py", model / "1/model.py")
    return folder / "models"


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
