"""How many people Silero's voice detector can listen to at once, in real time.

    python examples/voice_activity/fetch.py
    python -m benchmarks.voice [--streams 100 200 400] [--cores 0] [--processes 1] [--seconds 10]
                               [--by-id --connections 1]

Serves the detector on the cores given and streams sound to it from the second core, on every stream a frame
each 32 ms, in real time. Prints for each number of streams: the share of frames answered within 32 ms, the
median and 99th percentile of the time from when a frame was due, the mean rows of the batches that answers
came from, the server's CPU for each frame, and the share of a core that the load took. With frames sent late
it is the load that is measured. With `--by-id`, the voices of a connection share a stream, as sequences with
ids, and frames that are due together come in one message. The sound is noise, which takes as long as speech.
"""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import machine, servers
from penstock_proto.v1 import prediction_pb2, tensor_pb2

MODELS = servers.ROOT / "examples" / "voice_activity" / "models"
MODEL = "voice_activity"
RATE, FRAME, TAKEN = 16_000, 512, 576
PERIOD = FRAME / RATE
MESSAGES = 64


def main() -> None:
    arguments = parsed()
    if not (MODELS / MODEL / "1" / "model.onnx").is_file():
        raise SystemExit("there is no model: run examples/voice_activity/fetch.py first")
    command = [Path(sys.executable).with_name("penstock"), "serve", MODELS]
    command += ["--port", "0", "--http-port", "0", "--ops-port", "0"]
    command += ["--processes", str(arguments.processes)]
    with tempfile.TemporaryDirectory() as folder, servers.started(command, arguments.cores) as server:
        messages = Path(folder) / "messages"
        messages.write_text(json.dumps(noise()))
        cores = ", ".join(map(str, arguments.cores))
        print(f"{machine.description()}; server on core {cores}, processes: {arguments.processes}")
        print(
            f"{'streams':>7}{'in time':>9}{'p50 ms':>8}{'p99 ms':>8}{'rows':>7}{'server µs':>11}"
            f"{'load':>6}{'late ms':>9}"
        )
        for streams in arguments.streams:
            print(measured(server, messages, streams, arguments), flush=True)


def measured(server: servers.Server, messages: Path, streams: int, arguments: argparse.Namespace) -> str:
    """The line of that many streams."""
    program = Path(__file__).parent / "programs" / "frames_load.py"
    values: tuple[object, ...]
    values = (server.target, messages, streams, arguments.connections, PERIOD, arguments.seconds)
    values += ("by-id",) if arguments.by_id else ()
    before = server.cpu_seconds()
    done = subprocess.run(
        [*machine.on_cores(machine.cores()[1]), sys.executable, program, *map(str, values)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = json.loads(done.stdout)
    frames = int(arguments.seconds / PERIOD) * streams
    each = (server.cpu_seconds() - before) * 1e6 / frames
    return (
        f"{streams:7}{found['in_time']:9.2%}{found['p50_ms']:8.1f}{found['p99_ms']:8.1f}"
        f"{found['batch_rows']:7.1f}{each:11.1f}{found['cpu']:6.0%}{found['late_ms']:9.1f}"
    )


def noise() -> list[str]:
    """Requests of one frame each, in base64."""
    generator = np.random.default_rng(0)
    return [base64.b64encode(message(generator.normal(0, 0.1, (1, TAKEN)))).decode() for _ in range(MESSAGES)]


def message(sound: np.ndarray) -> bytes:
    """The request of one frame."""
    request = prediction_pb2.PredictRequest(model=MODEL)
    request.inputs["input"].MergeFrom(
        tensor_pb2.Tensor(datatype=tensor_pb2.FP32, shape=sound.shape, raw=sound.astype("<f4").tobytes())
    )
    request.inputs["sr"].MergeFrom(tensor_pb2.Tensor(datatype=tensor_pb2.INT64, raw=np.int64(RATE).tobytes()))
    return request.SerializeToString()


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[100, 200, 300, 400])
    parser.add_argument("--cores", type=int, nargs="+", default=[machine.cores()[0]], help="of the server")
    parser.add_argument("--processes", type=int, default=1, help="of the server")
    parser.add_argument("--connections", type=int, default=8, help="that share the streams")
    parser.add_argument("--by-id", action="store_true", help="one stream a connection, sequences by their id")
    parser.add_argument("--seconds", type=float, default=10.0, help="to measure each")
    return parser.parse_args()


if __name__ == "__main__":
    main()
