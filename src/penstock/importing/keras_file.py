"""Keras: models that are saved as .keras or .h5 and have a fixed shape for each row."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from penstock.core.names import many
from penstock.importing.errors import Refused
from penstock.importing.network import OPSET, Network
from penstock.importing.network_ends import Tensor
from penstock.importing.original import Original

BACKENDS = ("tensorflow", "torch", "jax")
BESIDE = {"tensorflow": "tf2onnx", "torch": "onnxscript", "jax": "jax2onnx"}
"""What the export to ONNX of each backend needs."""
FIXED = (
    "fixed = keras.models.clone_model(model, input_tensors=keras.Input({shape})); "
    "fixed.set_weights(model.get_weights()); fixed.save('fixed.keras')"
)


def load(path: Path) -> Original:
    """Loads the file, or the folder of a SavedModel.

    Raises:
        Refused: it cannot be loaded.
    """
    choose_backend()
    if path.is_dir():
        from penstock.importing import saved_model

        return saved_model.load(path)
    import keras

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = keras.saving.load_model(path, compile=False, safe_mode=True)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # whatever the file raises
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise Refused(f"{path}: Keras {keras.__version__} cannot load it: {said}") from error
    return KerasModel(loaded)


def choose_backend() -> None:
    """Takes a backend that is installed, unless the user chose one: Keras itself takes TensorFlow."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    found = [each for each in BACKENDS if find_spec(each) is not None]
    if found and find_spec("keras") is not None:
        os.environ.setdefault("KERAS_BACKEND", found[0])


class KerasModel(Network):
    """A model with declared inputs; see `Original`.

    Args:
        model: as Keras loads it.

    Raises:
        Refused: it declares no inputs, or they have open axes.
    """

    def __init__(self, model: Any) -> None:
        import keras

        self.model = model
        self._backend = keras.config.backend()
        title = f"Keras {type(model).__name__} {model.name}"
        libraries = ["keras", self._backend, f"{self._backend}-cpu", BESIDE[self._backend]]
        self._declared = _declared(title, model)
        own = keras.tree.flatten(self._declared)
        super().__init__(title, libraries, [_tensor(title, each) for each in own])

    def way_out(self, tensor: Tensor) -> str:
        """See the base class."""
        example = tuple(8 if each is None else each for each in tensor.shape)
        return f"fix it, with the length that requests have (here 8): {FIXED.format(shape=example)}"

    def run(self, values: Sequence[Any]) -> Mapping[str, Any]:
        """See the base class."""
        import keras

        made = self.model(keras.tree.pack_sequence_as(self._declared, list(values)), training=False)
        found = [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(made)]
        return dict(zip(self._named(made, len(found)), found, strict=True))

    def _named(self, made: Any, count: int) -> Sequence[str]:
        if isinstance(made, dict) and len(made) == count:
            return sorted(made)  # as Keras and TensorFlow put them into an order
        if count == 1:
            return ("prediction",)
        own = list(getattr(self.model, "output_names", ()))
        return own if len(set(own)) == count else [f"output_{i}" for i in range(count)]

    def export(self, path: Path) -> None:
        """See the base class."""
        import keras

        for each in self.model._flatten_layers():
            if isinstance(each, keras.layers.Normalization) and each.input_mean is None:
                # As tensors, what it has adapted to becomes inputs of the graph, without values.
                each.mean, each.variance = map(keras.ops.convert_to_numpy, (each.mean, each.variance))
        self.model.export(str(path), format="onnx", verbose=False, opset_version=OPSET)


def _declared(title: str, model: Any) -> Any:
    """The inputs of a model, as it takes them: one, a list, or a dictionary.

    Raises:
        Refused: it has none.
    """
    import keras

    try:
        found = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
        if keras.tree.flatten(found):
            return found
    except (AttributeError, IndexError, TypeError, ValueError):
        pass
    raise Refused(
        f"{title} declares no inputs, as subclasses of Model do not: make a model of keras.Input with it, "
        "keras.Model(x, model(x)), and save that"
    )


def _tensor(title: str, own: Any) -> Tensor:
    batch, *shape = own.shape
    if batch is not None:
        raise Refused(
            f"{title}: its input {own.name} takes {many(batch, 'row')} at a time: give keras.Input a "
            "shape, and no batch size"
        )
    return Tensor(own.name, shape, str(own.dtype))
