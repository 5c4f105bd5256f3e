"""PyTorch: modules saved whole, TorchScript and exported programs, that take one tensor of numbers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import numpy as np

from penstock.core.names import many
from penstock.importing.errors import Refused, exporting
from penstock.importing.graph_ends import finished
from penstock.importing.recurrent import keep_missing
from penstock.importing.table import VECTOR, Inputs, as_tensor, column, holds_lists, list_column

BATCH = "batch"
WRITTEN = (
    "torch.export.save(torch.export.export(model, (example,), "
    "dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), 'model.pt2')"
)
ONE_TENSOR = (
    "save a module around it that takes them side by side, whose forward(self, x) is "
    "return self.model(x[:, :3], x[:, 3:]) for three numbers and the rest"
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
    """A module that takes FP32 [N, columns], or lists of numbers; see `Original`."""

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
        self._shape: Sequence[int] = ()
        self._end = VECTOR
        self._outputs: Sequence[str] = ("prediction",)

    def texts(self, columns: Sequence[str]) -> Iterable[str]:
        """See `Original`."""
        return ()

    def inputs(self, frame: Any, vector: bool) -> Inputs:
        """See `Original`."""
        lists = [each for each in frame.columns if holds_lists(frame[each])]
        if lists and len(frame.columns) > 1:
            raise Refused(
                f"{self.title}: the sample has lists in {lists[0]}, and {len(frame.columns)} columns: "
                "leave the others out with --target and --drop"
            )
        if lists and vector:
            raise Refused(
                "--as vector takes columns of single numbers; a list of numbers is a vector already"
            )
        columns = [(list_column if lists else column)(frame, each) for each in frame.columns]
        self._shape = columns[0].shape if lists else (len(columns),)
        self._end = columns[0].name if lists else VECTOR
        if len(taken := self._parameters()) > 1:
            named = ", ".join(taken)
            raise Refused(
                f"{self.title} takes {len(taken)} tensors, {named}, and one is imported: {ONE_TENSOR}"
            )
        if self._is_program:
            self._check_program()
        if texts := [each.name for each in columns if each.text]:
            raise Refused(
                f"{self.title} takes numbers; these columns hold texts: {', '.join(texts)}; number them "
                "before they are sent, as in training, or leave them out with --drop"
            )
        self._names = [each.name for each in columns]
        return Inputs(columns, vector, by_position=True)

    def _parameters(self) -> list[str]:
        """The names of the tensors that it needs, as far as they are known; with shapes of a program's."""
        if self._is_program:
            names = self.model.graph_signature.user_inputs
            shapes = {
                each.name: each.meta["val"].shape for each in self.model.graph.nodes if each.name in names
            }
            return [f"{name} [{', '.join(map(str, shapes[name]))}]" for name in names if name in shapes]
        if self._is_script:
            own = self.model.forward.schema.arguments[1:]
            return [each.name for each in own if not each.has_default_value()]
        kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        own = signature(self.model.forward).parameters.values()
        return [each.name for each in own if each.kind in kinds and each.default is Parameter.empty]

    def _check_program(self) -> None:
        """Checks that an exported program takes the rows of a table.

        Raises:
            Refused: it does not.
        """
        names = self.model.graph_signature.user_inputs
        own = [each for each in self.model.graph.nodes if each.name in names]
        shapes = [each.meta["val"].shape for each in own]
        if len(shapes) != 1 or tuple(shapes[0][1:]) != tuple(self._shape):
            listed = ", ".join(str([str(axis) for axis in each]) for each in shapes)
            axes = ", ".join(map(str, self._shape))
            of = "the columns" if self._end == VECTOR else "the lists"
            raise Refused(
                f"{self.title}: its inputs are {listed}, expected one [rows, {axes}], {of} of the sample"
            )
        if isinstance(shapes[0][0], int):
            raise Refused(
                f"{self.title}: it takes {many(shapes[0][0], 'row')} at a time: write it with {WRITTEN}"
            )

    def predict(self, frame: Any) -> Mapping[str, Any]:
        """See `Original`."""
        import torch

        with torch.no_grad():
            made = self._callable(torch.from_numpy(self._values(frame)))
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

    def _values(self, frame: Any) -> Any:
        """The rows as it takes them, FP32 [N, columns] or [N, *shape of a list]."""
        if self._end == VECTOR:
            return frame[list(self._names)].to_numpy(np.float32)
        return as_tensor(frame[self._end], np.float32)

    def convert(self, inputs: Inputs) -> Any:
        """See `Original`."""
        import onnx

        with exporting(self.title, "torch.onnx.export"):
            made = onnx.load_from_string(self._exported())
        keep_missing(made.graph)
        return finished(made, inputs, list(self._outputs))

    def _exported(self) -> bytes:
        import torch

        file, example = io.BytesIO(), (torch.zeros(2, *self._shape),)
        ends: dict[str, Any] = {
            "input_names": [self._end],
            "output_names": [f"{each}_" for each in self._outputs],
        }
        if self._is_script:  # the newer exporter does not take it
            axes = {name: {0: BATCH} for name in (self._end, *ends["output_names"])}
            torch.onnx.export(self.model, example, file, dynamo=False, dynamic_axes=axes, **ends)
            return file.getvalue()
        if self._is_program:
            program = torch.onnx.export(self.model, dynamo=True, verbose=False, **ends)
        else:
            shapes = ({0: torch.export.Dim.DYNAMIC},)
            program = torch.onnx.export(
                self.model, example, dynamo=True, dynamic_shapes=shapes, verbose=False, **ends
            )
        proto: bytes = program.model_proto.SerializeToString()
        return proto


def _float(values: Any) -> Any:
    """FP64 for numbers of floating point; other types as they are."""
    return values.astype(np.float64) if values.dtype.kind == "f" else values
