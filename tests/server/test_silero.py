"""Silero's voice detector, a real model with a state and a scalar, on real speech.

    PENSTOCK_TEST_SILERO=silero_vad.onnx PENSTOCK_TEST_SPEECH=folder pytest tests/server/test_silero.py

The model is `silero_vad/data/silero_vad.onnx` of the package silero-vad; the speech, WAV files of 16 kHz, 16
bits and one channel, wherever in the folder.
"""

from __future__ import annotations

import os
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

import penstock_client
from server import kit
from support import zoo
from support.servers import RunningServer, running_server

MODEL, SPEECH = (Path(os.environ.get(f"PENSTOCK_TEST_{name}") or "/nowhere") for name in ("SILERO", "SPEECH"))
pytestmark = [
    pytest.mark.skipif(not MODEL.is_file(), reason="PENSTOCK_TEST_SILERO names no silero_vad.onnx"),
    pytest.mark.skipif(not any(SPEECH.rglob("*.wav")), reason="PENSTOCK_TEST_SPEECH names no folder of WAVs"),
]
RATE, FRAME, CONTEXT = 16_000, 512, 64
SR = np.array(RATE, np.int64)
STREAMS = 32
SPEAKS = 0.5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = tmp_path_factory.mktemp("silero")
    (root / "vad" / "1").mkdir(parents=True)
    shutil.copy(MODEL, root / "vad" / "1" / "model.onnx")
    (root / "vad" / "model.toml").write_text('[sequence]\nstate = { state = "stateN" }\n')
    with running_server(root) as server:
        yield server


@pytest.fixture(scope="module")
def recordings() -> list[np.ndarray]:
    """The frames of every recording, FP32 [count, 576]: each with the end of the one before in front."""
    found = []
    for path in sorted(SPEECH.rglob("*.wav")):
        with wave.open(str(path)) as file:
            if (file.getframerate(), file.getsampwidth(), file.getnchannels()) != (RATE, 2, 1):
                continue
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 2**15
        frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
        before = np.concatenate([np.zeros((1, CONTEXT), np.float32), frames[:-1, -CONTEXT:]])
        found.append(np.concatenate([before, frames], axis=1))
    return found


def directly(frames: np.ndarray, *, keep: bool = True) -> np.ndarray:
    """What ONNX Runtime itself gives, the state carried by hand; zeros at each step where it is not kept."""
    session = zoo.session(onnx.load(MODEL))
    state, got = np.zeros((2, 1, 128), np.float32), []
    for frame in frames:
        output, after = session.run(None, {"input": frame[np.newaxis], "state": state, "sr": SR})
        got.append(output)
        state = after if keep else state
    return np.concatenate(got)


def streamed(client: penstock_client.Client, frames: np.ndarray) -> tuple[np.ndarray, int]:
    """What the server gives on a stream, and the most rows of a batch."""
    steps = ({"input": frame[np.newaxis], "sr": SR} for frame in frames)
    results = list(client.predict_stream("vad", steps, max_in_flight=8))
    return np.concatenate([each["output"] for each in results]), max(
        each.timing.batch_rows for each in results
    )


def test_it_is_batched(server: RunningServer) -> None:
    with penstock_client.Client(server.target) as client:
        model = client.model("vad")
    assert model.batching.enabled, model.batching.reason
    assert model.kept_state is not None
    assert [each.name for each in model.inputs] == ["input", "sr"]
    assert [each.name for each in model.outputs] == ["output"]


def test_frame_by_frame_is_what_onnx_runtime_gives(
    server: RunningServer, recordings: list[np.ndarray]
) -> None:
    with penstock_client.Client(server.target) as client:
        for frames in recordings:
            assert np.array_equal(streamed(client, frames)[0], directly(frames))


def test_so_it_is_where_32_streams_share_batches(server: RunningServer, recordings: list[np.ndarray]) -> None:
    wanted = [directly(frames) for frames in recordings]
    with penstock_client.Client(server.target) as client:
        places = [number % len(recordings) for number in range(STREAMS)]
        calls = [lambda place=place: streamed(client, recordings[place]) for place in places]
        got = kit.in_parallel(calls, threads=STREAMS)
    assert all(np.array_equal(each, wanted[place]) for place, (each, _) in zip(places, got, strict=True))
    assert max(rows for _, rows in got) > 1


def test_without_its_state_it_hears_something_else(recordings: list[np.ndarray]) -> None:
    kept = np.concatenate([directly(frames) for frames in recordings]) > SPEAKS
    dropped = np.concatenate([directly(frames, keep=False) for frames in recordings]) > SPEAKS
    assert (kept != dropped).mean() > 0.5
