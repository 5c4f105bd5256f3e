"""Networks of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from importing.networks import Made, Network, lists, numbers, stacked

ROWS, FRESH = 300, 400
IMAGE = (3, 8, 8)
STEPS = (6, 4)


def _torch() -> Any:
    import torch

    torch.manual_seed(0)
    return torch


def _lists(shape: tuple[int, ...], rows: int, seed: int) -> Any:
    return lists(rows, seed, *shape)


def whole(model: Any, folder: Path, shape: tuple[int, ...]) -> Path:
    """Saved whole."""
    _torch().save(model, folder / "model.pt")
    return folder / "model.pt"


def script(model: Any, folder: Path, shape: tuple[int, ...]) -> Path:
    """TorchScript."""
    _torch().jit.script(model).save(folder / "model.pt")
    return folder / "model.pt"


def program(model: Any, folder: Path, shape: tuple[int, ...]) -> Path:
    """An exported program with an open axis of rows."""
    torch = _torch()
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    made = torch.export.export(model, (torch.zeros(2, *shape),), dynamic_shapes=shapes)
    torch.export.save(made, folder / "model.pt2")
    return folder / "model.pt2"


def fixed(model: Any, folder: Path, shape: tuple[int, ...]) -> Path:
    """An exported program for two rows."""
    torch = _torch()
    torch.export.save(torch.export.export(model, (torch.zeros(2, *shape),)), folder / "model.pt2")
    return folder / "model.pt2"


def weights(model: Any, folder: Path, shape: tuple[int, ...]) -> Path:
    """The weights alone."""
    _torch().save(model.state_dict(), folder / "model.pt")
    return folder / "model.pt"


def _network(
    make: Callable[[Any], Any],
    rows: Callable[[int, int], Any] = numbers,
    save: Callable[[Any, Path, tuple[int, ...]], Path] = whole,
) -> Callable[[Path], Made]:
    def made(folder: Path) -> Made:
        torch = _torch()
        model = make(torch.nn).eval()
        sample = rows(ROWS, 1)
        path = save(model, folder, stacked(sample).shape[1:])

        def answer(frame: Any) -> Mapping[str, Any]:
            with torch.no_grad():
                found = model(torch.from_numpy(stacked(frame)))
            found = list(found) if isinstance(found, tuple) else [found]
            names = ["prediction"] if len(found) == 1 else [f"output_{i}" for i in range(len(found))]
            return {name: np.asarray(each) for name, each in zip(names, found, strict=True)}

        return Made(path, sample, rows(FRESH, 2), answer)

    return made


def _layers(nn: Any) -> Any:
    hidden = (nn.BatchNorm1d(4), nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5))
    return nn.Sequential(*hidden, nn.Linear(8, 2), nn.Softmax(1))


def _convolution(nn: Any) -> Any:
    hidden = (nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.SiLU(), nn.AvgPool2d(2))
    return nn.Sequential(*hidden, nn.Flatten(), nn.Linear(96, 3))


def _of_images(*layers: Callable[[Any], Any]) -> Callable[[Path], Made]:
    return _network(lambda nn: nn.Sequential(*(each(nn) for each in layers)), partial(_lists, IMAGE))


def _encoder(nn: Any) -> Any:
    return nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)


_SAVES = {
    "saved whole": whole,
    "TorchScript": script,
    "an exported program": program,
    "an exported program for two rows": fixed,
    "weights alone": weights,
}
_STEPS: Mapping[str, Callable[[Any], Any]] = {
    "GRU": lambda nn: _last_step(nn, nn.GRU(4, 5, batch_first=True)),
    "LSTM(num_layers=2, bidirectional=True)": lambda nn: _last_step(
        nn, nn.LSTM(4, 5, num_layers=2, bidirectional=True, batch_first=True)
    ),
    "Conv1d(dilation=2)": lambda nn: nn.Sequential(nn.Conv1d(6, 3, 2, dilation=2), nn.ELU()),
    "TransformerEncoderLayer": lambda nn: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
}


def _last_step(nn: Any, layers: Any) -> Any:
    """A module that gives what a recurrent layer gives for the last step."""

    class LastStep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, steps: Any) -> Any:
            return self.layers(steps)[0][:, -1]

    return LastStep()


def _two(nn: Any) -> Any:
    """A module with two outputs."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(4, 2), nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return self.left(x), self.right(x).sigmoid()

    return Two()


CASES = [
    *(
        Network(f"BatchNorm1d, Linear, Dropout, Softmax; {name}", _network(_layers, save=save))
        for name, save in _SAVES.items()
    ),
    *(
        Network(
            f"Linear and {each}",
            _network(lambda nn, each=each: nn.Sequential(nn.Linear(4, 5), getattr(nn, each)())),
        )
        for each in ("GELU", "Hardswish", "Softplus", "Tanh")
    ),
    *(
        Network(
            f"Conv2d, BatchNorm2d, SiLU, AvgPool2d; {name}",
            _network(_convolution, partial(_lists, IMAGE), save),
        )
        for name, save in list(_SAVES.items())[:3]
    ),
    Network("Conv2d and MaxPool2d", _of_images(lambda nn: nn.Conv2d(3, 4, 3), lambda nn: nn.MaxPool2d(2))),
    Network(
        "ConvTranspose2d and InstanceNorm2d",
        _of_images(lambda nn: nn.ConvTranspose2d(3, 4, 3, stride=2), lambda nn: nn.InstanceNorm2d(4)),
    ),
    Network("Upsample(mode='bilinear')", _of_images(lambda nn: nn.Upsample(scale_factor=2, mode="bilinear"))),
    *(Network(name, _network(make, partial(_lists, STEPS), program)) for name, make in _STEPS.items()),
    Network("two outputs", _network(_two, save=program)),
]
