"""TensorFlow: the function `serving_default` of a SavedModel."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.core.names import many
from penstock.importing.errors import Refused
from penstock.importing.network import OPSET, Network
from penstock.importing.network_ends import Tensor

FUNCTION = "serving_default"


def load(path: Path) -> SavedModel:
    """Loads the folder.

    Raises:
        Refused: it cannot be loaded, or lacks the function.
    """
    import tensorflow

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = tensorflow.saved_model.load(str(path))
    except Exception as error:  # whatever the files raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise Refused(f"{path}: TensorFlow cannot load it: {said}") from error
    if FUNCTION not in loaded.signatures:
        names = ", ".join(loaded.signatures) or "none"
        raise Refused(
            f"{path}: it has no signature {FUNCTION} (its signatures: {names}): export it with "
            "model.export(path), or save the model as a .keras file"
        )
    return SavedModel(path.name, loaded)


class SavedModel(Network):
    """The function that takes tensors by name; see `Original`.

    Args:
        name: of the folder.
        loaded: as TensorFlow loads it; it owns the weights.

    Raises:
        Refused: its inputs have open axes.
    """

    def __init__(self, name: str, loaded: Any) -> None:
        self.model, self._loaded = None, loaded
        self._function = loaded.signatures[FUNCTION]
        title = f"TensorFlow SavedModel {name}"
        self._specs = self._function.structured_input_signature[1]
        tensors = [_tensor(title, each, spec) for each, spec in self._specs.items()]
        super().__init__(title, ["tensorflow", "tensorflow-cpu", "tf2onnx"], tensors)

    def way_out(self, tensor: Tensor) -> str:
        """See the base class."""
        return "export the model with a fixed one"

    def run(self, values: Sequence[Any]) -> Mapping[str, Any]:
        """See the base class."""
        made = self._called(*values)
        names = sorted(made)  # as TensorFlow puts them into an order
        return {"prediction" if len(names) == 1 else name: made[name].numpy() for name in names}

    def _called(self, *values: Any) -> Mapping[str, Any]:
        import tensorflow

        names = [each.name for each in self.tensors]
        given = {name: tensorflow.convert_to_tensor(each) for name, each in zip(names, values, strict=True)}
        found: Mapping[str, Any] = self._function(**given)
        return found

    def export(self, path: Path) -> None:
        """See the base class."""
        import tensorflow
        import tf2onnx

        specs = [
            tensorflow.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in self._specs.items()
        ]
        function = tensorflow.function(self._called, input_signature=specs)
        tf2onnx.convert.from_function(function, input_signature=specs, opset=OPSET, output_path=str(path))


def _tensor(title: str, name: str, spec: Any) -> Tensor:
    if spec.shape.rank is None or spec.shape.rank < 1:
        raise Refused(f"{title}: its input {name} has no axis of rows")
    batch, *shape = spec.shape.as_list()
    if batch is not None:
        raise Refused(
            f"{title}: its input {name} takes {many(batch, 'row')} at a time: export it without a batch size"
        )
    return Tensor(name, shape, spec.dtype.name)
