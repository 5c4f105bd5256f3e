"""Streams a recording to Silero's voice detector at a Penstock server and prints when somebody speaks.

    python examples/voice_activity/listen.py FILE.wav [--target HOST:PORT] [--realtime] [--plot OUT.png]

The recording is a WAV file of 16 kHz, 16 bits and one channel. It is sent frame by frame over one stream,
which is one sequence: the server keeps the detector's state between the frames.
"""

from __future__ import annotations

import argparse
import sys
import time
import wave
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock_client import Client, PenstockError

MODEL = "voice_activity"
RATE = 16_000  # samples a second
FRAME = 512  # samples that are heard at once: 32 ms
CONTEXT = 64  # samples before a frame that the detector takes as well

# The defaults of `get_speech_timestamps` in silero_vad/utils_vad.py, silero-vad 6.2.3.
SPEAKS = 0.5  # speech begins at this probability
SILENT = 0.35  # it may have ended below this one
SHORTEST_SILENCE = RATE * 100 // 1000  # samples; speech has not ended until it is quiet for so long
SHORTEST_SPEECH = RATE * 250 // 1000  # samples; what is not longer is no speech
PADDING = RATE * 30 // 1000  # samples that are added on both sides


class Segment(NamedTuple):
    """Somebody speaks.

    Attributes:
        start: the first sample.
        end: the first sample after it.
    """

    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.start / RATE:.2f} - {self.end / RATE:.2f} s"


class Segmenter:
    """Makes segments of the probabilities, as `get_speech_timestamps` of silero-vad does, but one by one."""

    def __init__(self) -> None:
        self._heard = 0  # samples
        self._start: int | None = None
        self._quiet_since: int | None = None

    def add(self, probability: float) -> Segment | None:
        """Takes the probability of speech in the next frame; returns the segment that has ended by it."""
        now, self._heard = self._heard, self._heard + FRAME
        if probability >= SPEAKS:
            self._quiet_since = None
            self._start = now if self._start is None else self._start
        elif probability < SILENT and self._start is not None:
            self._quiet_since = now if self._quiet_since is None else self._quiet_since
            if now - self._quiet_since >= SHORTEST_SILENCE:
                return self._end(self._quiet_since, self._quiet_since + PADDING)
        return None

    def finish(self, samples: int) -> Segment | None:
        """The segment that a recording of that many samples ends within."""
        return self._end(samples, samples)

    def _end(self, end: int, padded: int) -> Segment | None:
        start, self._start, self._quiet_since = self._start, None, None
        if start is None or end - start <= SHORTEST_SPEECH:
            return None
        return Segment(max(start - PADDING, 0), padded)


def read(path: Path) -> NDArray[np.float32]:
    """The samples of a recording, FP32 [count] within -1 and 1.

    Raises:
        SystemExit: it cannot be read, or is not what the detector takes.
    """
    try:
        with wave.open(str(path)) as file:
            came = file.getnchannels(), file.getframerate(), 8 * file.getsampwidth()
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise SystemExit(f"{path} cannot be read as a WAV file: {error}") from None
    if came != (1, RATE, 16):
        channels, rate, bits = came
        raise SystemExit(
            f"{path} has {channels} channel(s), {rate} Hz, {bits} bits; expected 1, {RATE} Hz, 16 bits"
        )
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(2**15)


def frames(samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The frames, FP32 [1, 576] each: the end of the one before, and 512 samples; the last one filled up."""
    count = -(-len(samples) // FRAME)
    filled = np.zeros(CONTEXT + count * FRAME, np.float32)
    filled[CONTEXT : CONTEXT + len(samples)] = samples
    for start in range(0, count * FRAME, FRAME):
        yield filled[np.newaxis, start : start + CONTEXT + FRAME]


def as_spoken(recording: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """The frames, each when a microphone would have it."""
    begun = time.monotonic()
    for place, frame in enumerate(recording, 1):
        time.sleep(max(begun + place * FRAME / RATE - time.monotonic(), 0))
        yield frame


def listen(client: Client, recording: Iterable[NDArray[np.float32]]) -> Iterator[float]:
    """The probability of speech in each frame, as the answers come."""
    steps = ({"input": frame, "sr": RATE} for frame in recording)
    for answer in client.predict_stream(MODEL, steps):
        yield float(answer["output"][0, 0])


def follow(probabilities: Iterable[float], samples: int, kept: list[float]) -> Iterator[Segment]:
    """The segments, each as soon as it has ended; the probabilities are kept."""
    segmenter = Segmenter()
    for probability in probabilities:
        kept.append(probability)
        segment = segmenter.add(probability)
        if segment is not None:
            yield segment
    last = segmenter.finish(samples)
    if last is not None:
        yield last


def figure_for(path: Path) -> Any:
    """An empty figure of Matplotlib's; made before anything is sent, so that a wrong path shows early.

    Raises:
        SystemExit: Matplotlib is missing, or the picture cannot be written there.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise SystemExit(f"--plot: there is no folder {folder}")
    if path.is_dir():
        raise SystemExit(f"--plot: {path} is a folder")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SystemExit(f"--plot needs matplotlib: {error}") from None
    figure = Figure(figsize=(9, 3), layout="constrained")
    suffixes = [f".{kind}" for kind in sorted(figure.canvas.get_supported_filetypes())]
    if path.suffix.lower() not in suffixes:
        raise SystemExit(f"--plot: {path} must end with one of {', '.join(suffixes)}")
    return figure


def draw(
    figure: Any, samples: NDArray[np.float32], probabilities: list[float], segments: list[Segment], path: Path
) -> None:
    """Writes the waveform with the probabilities over it and the segments shaded.

    Raises:
        SystemExit: the file cannot be written.
    """
    sound = figure.subplots()
    sound.plot(np.arange(len(samples)) / RATE, samples, color="0.6", linewidth=0.4)
    sound.set(xlabel="seconds", ylabel="waveform", xlim=(0, len(samples) / RATE), ylim=(-1, 1))
    for segment in segments:
        sound.axvspan(segment.start / RATE, segment.end / RATE, color="tab:green", alpha=0.15, linewidth=0)
    speech = sound.twinx()
    middles = (np.arange(len(probabilities)) + 0.5) * FRAME / RATE
    speech.plot(middles, probabilities, color="tab:blue", linewidth=1.2)
    speech.axhline(SPEAKS, color="tab:blue", linewidth=0.6, linestyle=":")
    speech.set(ylabel="probability of speech", ylim=(-1.05, 1.05), yticks=(0, 0.5, 1))
    try:
        figure.savefig(path, dpi=90)
    except OSError as error:
        raise SystemExit(f"--plot: {path}: {error.strerror or error}") from None


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="prints when somebody speaks")
    parser.add_argument("file", type=Path, help="a WAV file of 16 kHz, 16 bits, one channel")
    parser.add_argument("--target", default="127.0.0.1:8001", help="the server (default: %(default)s)")
    parser.add_argument("--realtime", action="store_true", help="send each frame when it would be spoken")
    parser.add_argument(
        "--plot", type=Path, metavar="OUT.png", help="draw waveform, probability and segments"
    )
    return parser.parse_args()


def main() -> None:
    """Listens to one recording."""
    arguments = parsed()
    samples = read(arguments.file)
    figure = figure_for(arguments.plot) if arguments.plot else None
    recording = as_spoken(frames(samples)) if arguments.realtime else frames(samples)
    probabilities: list[float] = []
    segments: list[Segment] = []
    begun = time.monotonic()
    try:
        with Client(arguments.target) as client:
            for segment in follow(listen(client, recording), len(samples), probabilities):
                print(segment, flush=True)
                segments.append(segment)
    except PenstockError as error:
        raise SystemExit(f"{arguments.target}: {error}") from None
    seconds = time.monotonic() - begun
    print(f"{len(probabilities)} frames, {len(samples) / RATE:.2f} s, in {seconds:.2f} s", file=sys.stderr)
    if figure is not None:
        draw(figure, samples, probabilities, segments, arguments.plot)


if __name__ == "__main__":
    main()
