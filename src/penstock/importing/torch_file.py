"""PyTorch: modules that are saved whole, TorchScript and exported programs that take a matrix of numbers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penstock.importing.errors import Refused
from penstock.importing.graph_ends import finished
from penstock.importing.table import VECTOR, Inputs, column

BATCH = "batch"
WRITTEN = (
    "torch.export.save(torch.export.export(model, (example,), "
    "dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), 'model.pt2')"
)


def load(path: Path) -> TorchModule:
    """Loads the file, which runs code of it.

    Raises:
        Refused: it cannot be loaded, or has no graph.
    """
    import torch

    loaders = (
        (_exported,)
        if path.suffix == ".pt2"
        else (torch.jit.load, lambda name: torch.load(name, map_location="cpu", weights_only=False))
    )
    errors = []
    for each in loaders:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loaded = each(str(path))
        except ModuleNotFoundError:
            raise
        except Exception as error:  # whatever the file raises
            errors.append(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
            continue
        return of_module(loaded)
    raise Refused(f"{path}: PyTorch cannot load it: {'; '.join(errors)}")


def of_module(model: Any) -> TorchModule:
    """The original that an object of PyTorch is.

    Raises:
        Refused: it has weights and no graph.
    """
    import torch

    if isinstance(model, torch.nn.Module | torch.export.ExportedProgram):
        return TorchModule(model)
    raise Refused(
        f"the file holds a {type(model).__name__}, such as the weights of a model without its graph: save "
        f"the module itself with torch.save(model, 'model.pt'), or write a program with {WRITTEN}"
    )


def _exported(path: str) -> Any:
    import torch

    return torch.export.load(path)


class TorchModule:
    """A module that takes FP32 [N, columns]; see `Original`."""

    def __init__(self, model: Any) -> None:
        import torch

        self._is_program = isinstance(model, torch.export.ExportedProgram)
        self._is_script = isinstance(model, torch.jit.ScriptModule)
        self.model = model
        self._callable = model.module() if self._is_program else model.eval().to("cpu")
        kind = "exported program" if self._is_program else "TorchScript" if self._is_script else "module"
        own = getattr(model, "original_name", "") if self._is_script else type(model).__name__
        self.title = f"PyTorch {kind}{'' if self._is_program or not own else ' ' + own}"
        self.libraries: Sequence[str] = ["torch", "onnxscript"]
        self._names: Sequence[str] = ()
        self._outputs: Sequence[str] = ("prediction",)

    def texts(self, columns: Sequence[str]) -> Iterable[str]:
        """See `Original`."""
        return ()

    def inputs(self, frame: Any, vector: bool) -> Inputs:
        """See `Original`."""
        if self._is_program:
            self._check_program(len(frame.columns))
        columns = [column(frame, each) for each in frame.columns]
        if texts := [each.name for each in columns if each.text]:
            raise Refused(
                f"{self.title} takes numbers; these columns hold texts: {', '.join(texts)}; number them "
                "before they are sent, as in training, or leave them out with --drop"
            )
        self._names = [each.name for each in columns]
        return Inputs(columns, vector, by_position=True)

    def _check_program(self, columns: int) -> None:
        """Checks that an exported program takes the rows of a table.

        Raises:
            Refused: it does not.
        """
        names = self.model.graph_signature.user_inputs
        own = [each for each in self.model.graph.nodes if each.name in names]
        shapes = [each.meta["val"].shape for each in own]
        if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] != columns:
            listed = ", ".join(str([str(axis) for axis in each]) for each in shapes)
            raise Refused(
                f"{self.title}: its inputs are {listed}, expected one [rows, {columns}], the columns of "
                "the sample"
            )
        if isinstance(shapes[0][0], int):
            raise Refused(f"{self.title}: it takes {shapes[0][0]} rows at a time: write it with {WRITTEN}")

    def predict(self, frame: Any) -> Mapping[str, Any]:
        """See `Original`."""
        import torch

        with torch.no_grad():
            made = self._callable(torch.from_numpy(frame[list(self._names)].to_numpy(np.float32)))
        found = list(made.values()) if isinstance(made, dict) else made
        found = list(found) if isinstance(found, list | tuple) else [found]
        names = [str(each) for each in made] if isinstance(made, dict) else None
        self._outputs = names or (
            ["prediction"] if len(found) == 1 else [f"output_{i}" for i in range(len(found))]
        )
        for name, each in zip(self._outputs, found, strict=True):
            if not isinstance(each, torch.Tensor) or each.ndim < 1 or len(each) != len(frame):
                shape = list(each.shape) if isinstance(each, torch.Tensor) else type(each).__name__
                raise Refused(
                    f"{self.title}: its output {name} ({shape}) has no row for each of the {len(frame)} rows "
                    "of the sample"
                )
        return {name: _float(each.numpy()) for name, each in zip(self._outputs, found, strict=True)}

    def convert(self, inputs: Inputs) -> Any:
        """See `Original`."""
        import onnx

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = onnx.load_from_string(self._exported(len(inputs.columns)))
        except ModuleNotFoundError:
            raise
        except Exception as error:  # the exporters have no root of their errors
            first = next((line for line in str(error).splitlines() if line.strip()), "")
            raise Refused(
                f"{self.title}: torch.onnx.export fails: {type(error).__name__}: {first.strip()[:300]}"
            ) from error
        return finished(made, inputs, list(self._outputs))

    def _exported(self, columns: int) -> bytes:
        import torch

        file = io.BytesIO()
        ends: dict[str, Any] = {
            "input_names": [VECTOR],
            "output_names": [f"{each}_" for each in self._outputs],
        }
        if self._is_script:  # the newer exporter does not take it
            example = (torch.zeros(2, columns),)
            axes = {name: {0: BATCH} for name in (VECTOR, *ends["output_names"])}
            torch.onnx.export(self.model, example, file, dynamo=False, dynamic_axes=axes, **ends)
            return file.getvalue()
        if self._is_program:
            program = torch.onnx.export(self.model, dynamo=True, verbose=False, **ends)
        else:
            example = (torch.zeros(2, columns),)
            shapes = ({0: torch.export.Dim.DYNAMIC},)
            program = torch.onnx.export(
                self.model, example, dynamo=True, dynamic_shapes=shapes, verbose=False, **ends
            )
        proto: bytes = program.model_proto.SerializeToString()
        return proto


def _float(values: Any) -> Any:
    """FP64 for numbers of floating point; other types as they are."""
    return values.astype(np.float64) if values.dtype.kind == "f" else values
