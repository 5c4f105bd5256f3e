"""Makes requests that look like those of callers.

Every input of a model is made as its entry in `packages.toml` says, with `shape` (numbers, and the names of
open lengths) and `make`, one of:

    image    a picture of gradients, shapes and noise: `low`, `high`, `channels` ("first" or "last")
    sound    tones, noise and silence, up to `peak`
    field    a spectrogram or another smooth signal with noise: `mean`, `spread`
    normal   normal numbers: `mean`, `spread`
    uniform  from `low` to `high`
    table    columns of features, each of another scale, some of them 0
    ids      whole numbers from `least`, below `below`, which may be the name of an open length
    bytes    the first and last bytes of files of many kinds, filled up with 256
    letters  words, one letter a row, as ones in a table of zeros
    count    the value of the open length that `of` names
    fill     `value` everywhere

A request is the same at each run: it depends on the name of the model and its own number only.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tests.zoo.packages import ZooModel

Array: TypeAlias = npt.NDArray[Any]
Rng: TypeAlias = np.random.Generator
Shape: TypeAlias = tuple[int, ...]
Settings: TypeAlias = Mapping[str, Any]


def request(model: ZooModel, number: int, dtypes: Mapping[str, np.dtype[Any]]) -> dict[str, Array]:
    """The inputs of one request.

    Args:
        model: whom it is for.
        number: from 0; each request is another one, and number k has value k of each open length.
        dtypes: of the model's inputs.
    """
    rng = np.random.default_rng([zlib.crc32(model.name.encode()), number])
    lengths = {name: values[number % len(values)] for name, values in model.lengths.items()}
    made = {}
    for name, settings in model.inputs.items():
        shape = tuple(lengths[axis] if isinstance(axis, str) else axis for axis in settings["shape"])
        values = {key: lengths.get(value, value) for key, value in settings.items() if key in ("below", "of")}
        array = MAKERS[settings["make"]](rng, shape, {**settings, **values})
        made[name] = np.asarray(array, dtypes[name], order="C").reshape(shape)
    return made


def _image(rng: Rng, shape: Shape, settings: Settings) -> Array:
    last = settings.get("channels") == "last"
    low, high = settings.get("low", 0.0), settings.get("high", 1.0)
    count, (height, width, channels) = shape[0], shape[1:] if last else (*shape[2:], shape[1])
    pictures = np.stack([_picture(rng, height, width, channels) for _ in range(count)])
    picture: Array = low + (high - low) * np.clip(pictures, 0.0, 1.0)
    return picture if last else picture.transpose(0, 3, 1, 2)


def _picture(rng: Rng, height: int, width: int, channels: int) -> Array:
    """Height by width by channels, from 0 to 1: a gradient, dark and bright rectangles, and noise."""
    down, across = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    slopes = rng.uniform(-0.4, 0.4, (2, channels))
    picture = rng.uniform(0.2, 0.8) + down[..., None] * slopes[0] + across[..., None] * slopes[1]
    for _ in range(rng.integers(3, 12)):
        top, left = rng.integers(0, height), rng.integers(0, width)
        tall, wide = rng.integers(1, max(2, height // 3)), rng.integers(1, max(2, width // 6))
        picture[top : top + tall, left : left + wide] = rng.uniform(0.0, 1.0, channels)
    noisy: Array = picture + rng.normal(0.0, rng.uniform(0.005, 0.08), picture.shape)
    return noisy


def _sound(rng: Rng, shape: Shape, settings: Settings) -> Array:
    count = int(np.prod(shape))
    time = np.arange(count) / 16000.0
    sound = rng.normal(0.0, 10.0 ** rng.uniform(-4, -1.5), count)
    for _ in range(rng.integers(1, 5)):
        tone = np.sin(2 * np.pi * rng.uniform(80, 3000) * time + rng.uniform(0, 6.28))
        beat = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(1, 8) * time + rng.uniform(0, 6.28))
        sound += 10.0 ** rng.uniform(-2.5, -0.4) * tone * beat
    peak = settings.get("peak", 1.0)
    heard: Array = peak * np.clip(sound, -1.0, 1.0)
    return heard


def _field(rng: Rng, shape: Shape, settings: Settings) -> Array:
    """Each axis of more than 4 places is smooth; how much of it is noise differs from request to request."""
    field = rng.normal(0.0, 1.0, shape)
    for axis, length in enumerate(shape):
        if length > 4:
            field = field + np.roll(field, 1, axis) + np.roll(field, 2, axis) + np.roll(field, -1, axis)
    field = field / max(float(field.std()), 1e-9) + rng.normal(0.0, rng.uniform(0.05, 0.5), shape)
    spread = settings.get("spread", 1.0) * rng.uniform(0.4, 1.4)
    made: Array = settings.get("mean", 0.0) + rng.normal(0.0, 0.3 * spread) + spread * field
    return made


def _normal(rng: Rng, shape: Shape, settings: Settings) -> Array:
    return rng.normal(settings.get("mean", 0.0), settings.get("spread", 1.0), shape)


def _uniform(rng: Rng, shape: Shape, settings: Settings) -> Array:
    return rng.uniform(settings.get("low", 0.0), settings.get("high", 1.0), shape)


def _table(rng: Rng, shape: Shape, _settings: Settings) -> Array:
    # The scale of a column is the same in every request.
    scales = 10.0 ** np.random.default_rng(shape[-1]).uniform(-1, 3, shape[-1])
    table: Array = scales * rng.gamma(rng.uniform(0.5, 3.0), 1.0, shape)
    table[rng.random(shape) < rng.uniform(0.0, 0.5)] = 0.0
    return table


def _ids(rng: Rng, shape: Shape, settings: Settings) -> Array:
    least, below = settings.get("least", 0), settings["below"]
    span = below - least
    # In some requests small ids are more frequent, as some letters and words are.
    power = rng.choice([1.0, 1.0, 2.0, 3.0])
    ids: Array = least + (span * rng.random(shape) ** power).astype(np.int64)
    capped: Array = np.minimum(ids, below - 1)
    return capped


def _bytes(rng: Rng, shape: Shape, _settings: Settings) -> Array:
    half = shape[-1] // 2
    content = np.frombuffer(_file(rng), np.uint8).astype(np.int64)
    made = np.full(shape, 256)
    start, end = content[:half], content[-half:]
    made[..., : len(start)] = start
    made[..., shape[-1] - len(end) :] = end
    return made


def _file(rng: Rng) -> bytes:
    """A file of one of many kinds, from a few bytes to some thousand."""
    words = ["the", "value", "return", "import", "class", "0.5", "name", "id", "if", "Zeile", "x", "total"]
    text = " ".join(rng.choice(words, rng.integers(5, 900)))
    numbers = rng.integers(0, 1000, rng.integers(8, 400)).tolist()
    kinds: list[bytes] = [
        text.encode(),
        f"# {text}\nimport os\n\n\ndef main():\n    print({numbers})\n".encode(),
        f'{{"items": {numbers}, "text": "{text}"}}'.encode(),
        b"a,b,c\n" + "\n".join(f"{n},{n + 1},{n * 2}" for n in numbers).encode(),
        f"<!DOCTYPE html><html><body><p>{text}</p></body></html>".encode(),
        f"#!/bin/sh\nset -e\nfor i in {text}; do echo $i; done\n".encode(),
        f"SELECT * FROM items WHERE id IN ({numbers});\n".replace("[", "").replace("]", "").encode(),
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + rng.bytes(1500),
        b"PK\x03\x04\x14\x00\x00\x00\x08\x00" + rng.bytes(2000),
        b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00" + rng.bytes(3000),
        rng.bytes(int(rng.integers(20, 4000))),
    ]
    return kinds[rng.integers(len(kinds))]


def _letters(rng: Rng, shape: Shape, _settings: Settings) -> Array:
    made = np.zeros((int(np.prod(shape[:-1])), shape[-1]))
    made[np.arange(len(made)), rng.integers(0, shape[-1], len(made))] = 1.0
    return made


def _count(_rng: Rng, shape: Shape, settings: Settings) -> Array:
    return np.full(shape, settings["of"])


def _fill(_rng: Rng, shape: Shape, settings: Settings) -> Array:
    return np.full(shape, settings["value"])


MAKERS: Mapping[str, Callable[[Rng, Shape, Settings], Array]] = {
    "image": _image,
    "sound": _sound,
    "field": _field,
    "normal": _normal,
    "uniform": _uniform,
    "table": _table,
    "ids": _ids,
    "bytes": _bytes,
    "letters": _letters,
    "count": _count,
    "fill": _fill,
}
"""What makes an input, by the word that `make` takes."""
