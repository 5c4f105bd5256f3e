"""The voice detector's example: segments, recordings that it does not take, and all of it on real speech.

The last needs the model and a folder of recordings, in the variables of `tests/server/test_silero.py`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import wave
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from support import zoo
from support.by_hand import tried
from support.servers import RunningServer, running_server

listen = zoo.example("voice_activity/listen.py")
fetch = zoo.example("voice_activity/fetch.py")

FOLDER = zoo.EXAMPLES / "voice_activity"
MODEL, SPEECH = (Path(os.environ.get(f"PENSTOCK_TEST_{name}") or "/nowhere") for name in ("SILERO", "SPEECH"))
needs_silero = pytest.mark.skipif(not MODEL.is_file(), reason="PENSTOCK_TEST_SILERO names no silero_vad.onnx")
needs_speech = pytest.mark.skipif(
    not any(SPEECH.rglob("*.wav")), reason="PENSTOCK_TEST_SPEECH names no folder of WAVs"
)


def segments(probabilities: list[float], samples: int | None = None) -> list[tuple[int, int]]:
    length = len(probabilities) * 512 if samples is None else samples
    return [tuple(each) for each in listen.follow(probabilities, length, [])]


def write(path: Path, samples: np.ndarray, *, channels: int = 1, rate: int = 16_000, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setframerate(rate)
        file.setsampwidth(width)
        file.writeframes(samples.tobytes())
    return path


@pytest.mark.parametrize("probabilities", [[], [0.1] * 40, [0.4] * 40, [0.49] * 40])
def test_without_speech_there_is_no_segment(probabilities: list[float]) -> None:
    assert segments(probabilities) == []


def test_speech_is_padded_by_30_ms_on_both_sides() -> None:
    assert segments([0.1] * 10 + [0.9] * 20 + [0.1] * 10) == [(10 * 512 - 480, 30 * 512 + 480)]


def test_speech_does_not_begin_before_the_recording_or_end_after_it() -> None:
    assert segments([0.9] * 20, samples=20 * 512 - 100) == [(0, 20 * 512 - 100)]


def test_speech_goes_on_through_what_is_neither_and_through_short_silence() -> None:
    between = [0.4] * 20 + [0.1] * 3 + [0.6] + [0.1] * 3 + [0.9]
    assert segments([0.9] * 10 + between + [0.1] * 10) == [(0, 38 * 512 + 480)]


def test_what_is_neither_does_not_end_a_silence() -> None:
    assert segments([0.9] * 10 + [0.1] + [0.4] * 4 + [0.1] + [0.9] * 10) == [
        (0, 10 * 512 + 480),
        (16 * 512 - 480, 26 * 512),
    ]


@pytest.mark.parametrize(("frames", "found"), [(7, 0), (8, 1)])  # 224 and 256 ms
def test_speech_of_250_ms_and_less_is_none(frames: int, found: int) -> None:
    assert len(segments([0.9] * frames + [0.1] * 10)) == found
    assert len(segments([0.9] * frames)) == found


def test_a_segment_comes_as_soon_as_it_has_ended() -> None:
    segmenter = listen.Segmenter()
    came = [segmenter.add(each) for each in [0.9] * 10 + [0.1] * 5]
    assert came == [None] * 14 + [(0, 10 * 512 + 480)]  # 128 ms of silence are the first that are over 100
    assert segmenter.finish(15 * 512) is None


def test_a_segment_reads_in_seconds() -> None:
    assert str(listen.Segment(8_000, 40_160)) == "0.50 - 2.51 s"


def test_frames_have_the_end_of_the_one_before_in_front() -> None:
    samples = np.arange(1, 1101, dtype=np.float32)
    first, second, third = listen.frames(samples)
    assert first.shape == second.shape == third.shape == (1, 576)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first[0], [*np.zeros(64), *samples[:512]])
    np.testing.assert_array_equal(second[0], samples[448:1024])
    np.testing.assert_array_equal(third[0], [*samples[960:], *np.zeros(436)])


def test_a_recording_without_samples_has_no_frames(tmp_path: Path) -> None:
    assert list(listen.frames(listen.read(write(tmp_path / "none.wav", np.zeros(0, np.int16))))) == []


def test_samples_are_between_minus_one_and_one(tmp_path: Path) -> None:
    read = listen.read(write(tmp_path / "loud.wav", np.array([-(2**15), 0, 2**14], np.int16)))
    assert read.dtype == np.float32
    assert read.tolist() == [-1.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("format_", "said"),
    [
        ({"channels": 2}, "2 channel(s), 16000 Hz, 16 bits"),
        ({"rate": 44_100}, "1 channel(s), 44100 Hz, 16 bits"),
        ({"width": 1}, "1 channel(s), 16000 Hz, 8 bits"),
    ],
)
def test_another_recording_is_refused(tmp_path: Path, format_: dict[str, int], said: str) -> None:
    path = write(tmp_path / "other.wav", np.zeros(100, np.int16), **format_)
    with pytest.raises(SystemExit) as refused:
        listen.read(path)
    assert str(refused.value) == f"{path} has {said}; expected 1, 16000 Hz, 16 bits"


@pytest.mark.parametrize("content", [b"", b"ID3 something else", None])
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "song.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit, match=r"song\.wav cannot be read as a WAV file"):
        listen.read(path)


def test_a_wheel_with_another_model_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "silero.whl", "w") as archive:
        archive.writestr(fetch.MEMBER, b"another")
    with pytest.raises(
        SystemExit, match=rf"{hashlib.sha256(b'another').hexdigest()}, expected {fetch.SHA256}"
    ):
        fetch.unpack(tmp_path / "silero.whl", tmp_path / "1" / "model.onnx")
    assert not (tmp_path / "1").exists()


@needs_silero
def test_the_model_of_a_wheel_is_laid_in_its_place(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "silero.whl", "w") as archive:
        archive.write(MODEL, fetch.MEMBER)
    fetch.unpack(tmp_path / "silero.whl", tmp_path / "1" / "model.onnx")
    assert (tmp_path / "1" / "model.onnx").read_bytes() == MODEL.read_bytes()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = tmp_path_factory.mktemp("models")
    model = root / "voice_activity"
    (model / "1").mkdir(parents=True)
    shutil.copy(FOLDER / "models" / "voice_activity" / "model.toml", model)
    shutil.copy(MODEL, model / "1" / "model.onnx")
    with running_server(root) as server:
        yield server


def run(server: RunningServer, path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "listen.py"), str(path), "--target", server.target, *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def recordings() -> list[Path]:
    """What the detector takes; there may be other files beside."""
    return [path for path in sorted(SPEECH.rglob("*.wav")) if is_taken(path)]


def is_taken(path: Path) -> bool:
    with wave.open(str(path)) as file:
        return (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (1, 16_000, 2)


def directly(path: Path) -> list[str]:
    """The segments by ONNX Runtime alone, the state carried by hand."""
    session = zoo.session(onnx.load(MODEL))
    state, sr, heard = np.zeros((2, 1, 128), np.float32), np.array(16_000, np.int64), []
    samples = listen.read(path)
    for frame in listen.frames(samples):
        output, state = session.run(None, {"input": frame, "state": state, "sr": sr})
        heard.append(float(output[0, 0]))
    return [str(each) for each in listen.follow(heard, len(samples), [])]


@needs_silero
@needs_speech
def test_it_hears_what_onnx_runtime_hears(server: RunningServer) -> None:
    for path in recordings()[:4]:
        done = run(server, path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == directly(path) != []
        assert done.stderr.count("\n") == 1


@needs_silero
@needs_speech
def test_in_real_time_it_takes_as_long_as_the_recording_and_draws_it(
    server: RunningServer, tmp_path: Path
) -> None:
    path = min(recordings(), key=lambda each: each.stat().st_size)
    done = run(server, path, "--realtime", "--plot", str(tmp_path / "out.png"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == directly(path)
    assert float(done.stderr.split()[-2]) >= len(listen.read(path)) / 16_000
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


@needs_silero
@pytest.mark.skipif(
    not any(SPEECH.rglob("cards/004.wav")), reason="PENSTOCK_TEST_SPEECH is not that of pocketsphinx-testdata"
)
def test_the_readme_shows_what_it_prints(server: RunningServer) -> None:
    done = run(server, next(SPEECH.rglob("cards/004.wav")))
    shown = (FOLDER / "README.md").read_text()
    assert f"\n{done.stdout}{done.stderr.rpartition('in')[0]}" in shown


@pytest.mark.parametrize(
    ("plot", "said"),
    [
        ("out.xyz", "out.xyz must end with one of "),
        ("out", "out must end with one of "),
        ("nowhere/out.png", "there is no folder "),
        (".", "is a folder"),
    ],
)
def test_a_picture_that_cannot_be_drawn_shows_before_anything_is_sent(
    tmp_path: Path, plot: str, said: str
) -> None:
    path = write(tmp_path / "quiet.wav", np.zeros(1024, np.int16))
    command = [sys.executable, FOLDER / "listen.py", path, "--target", "127.0.0.1:1", "--plot", plot]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("--plot: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "full.png"
    figure = listen.figure_for(path)
    path.symlink_to("/dev/full")
    with pytest.raises(SystemExit) as refused:
        listen.draw(figure, np.zeros(512, np.float32), [0.5], [], path)
    assert str(refused.value) == f"--plot: {path}: No space left on device"


@needs_silero
def test_the_line_that_the_server_prints_to_try_it_works(server: RunningServer, tmp_path: Path) -> None:
    assert "    batched    up to " in server.stdout
    (probability,) = tried(server, tmp_path)["output"]["floatValues"]
    assert 0 <= probability <= 1


def test_an_error_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "quiet.wav", np.zeros(1024, np.int16))
    with running_server(zoo.EXAMPLES / "models") as server:
        done = run(server, path)
    assert done.returncode == 1
    assert done.stderr == f"{server.target}: no model 'voice_activity'; available: lead_scoring\n"
