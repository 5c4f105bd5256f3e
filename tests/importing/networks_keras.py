"""Networks of Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from importing.data import table
from importing.networks import Made, Network, lists, numbers, stacked, whole

ROWS, FRESH = 300, 400
STEPS = 8


def _keras() -> Any:
    from penstock.importing.keras_file import choose_backend

    choose_backend()
    import keras

    keras.utils.clear_session()  # names are counted
    keras.utils.set_random_seed(0)
    return keras


def _made(model: Any, folder: Path, rows: Callable[[int, int], Any], suffix: str = ".keras") -> Made:
    path = folder / f"model{suffix}"
    model.save(path)

    def answer(frame: Any) -> Mapping[str, Any]:
        inputs = stacked(frame).reshape(-1, *model.inputs[0].shape[1:]).astype(model.inputs[0].dtype)
        return {"prediction": np.asarray(model.predict(inputs, verbose=0))}

    return Made(path, rows(ROWS, 1), rows(FRESH, 2), answer)


def _layers(
    make: Callable[[Any], list[Any]],
    shape: tuple[int | None, ...],
    rows: Callable[[int, int], Any],
    suffix: str = ".keras",
    dtype: str = "float32",
) -> Callable[[Path], Made]:
    """A sequence of layers."""

    def saved(folder: Path) -> Made:
        keras = _keras()
        model = keras.Sequential([keras.Input(shape, dtype=dtype), *make(keras.layers)])
        return _made(model, folder, rows, suffix)

    return saved


def _steps(make: Callable[[Any], list[Any]]) -> Callable[[Path], Made]:
    return _layers(make, (STEPS, 3), partial(lists_of, (STEPS, 3)))


def lists_of(shape: tuple[int, ...], rows: int, seed: int) -> Any:
    """Rows with one list each."""
    return lists(rows, seed, *shape)


def _dense(layers: Any) -> list[Any]:
    return [
        *(layers.Dense(16, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.3)),
        layers.Dense(3, activation="softmax"),
    ]


def _by_name(folder: Path) -> Made:
    keras = _keras()
    ends = [keras.Input((1,), name=each) for each in ("c", "a", "d")]
    joined = keras.layers.Concatenate()(ends)
    hidden = keras.layers.Dense(8, activation="gelu")(joined)
    outputs = {
        "spend": keras.layers.Dense(1, name="spend")(hidden),
        "churn": keras.layers.Dense(1, activation="sigmoid", name="churn")(hidden),
    }
    model = keras.Model({each.name: each for each in ends}, outputs)
    path = folder / "model.keras"
    model.save(path)

    def answer(frame: Any) -> Mapping[str, Any]:
        given = {each: frame[[each]].to_numpy(np.float32) for each in ("a", "c", "d")}
        return {name: np.asarray(each) for name, each in model(given, training=False).items()}

    names = ["a", "city", "c", "d"]
    return Made(path, table(ROWS, 1)[names], table(FRESH, 2)[names], answer)


def _normalized(folder: Path) -> Made:
    keras = _keras()
    scale = keras.layers.Normalization()
    scale.adapt(numbers(ROWS, 1).to_numpy(np.float32))
    model = keras.Sequential([keras.Input((4,)), scale, keras.layers.Dense(1)])
    return _made(model, folder, numbers)


def _residual(folder: Path) -> Made:
    keras = _keras()
    layers = keras.layers
    image = keras.Input((12, 12, 3))
    first = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    other = layers.SeparableConv2D(8, 3, padding="same")(first)
    joined = layers.LayerNormalization()(layers.Add()([first, other]))
    pooled = layers.GlobalAveragePooling2D()(layers.AveragePooling2D(2)(joined))
    model = keras.Model(image, layers.Dense(4, activation="softmax")(pooled))
    return _made(model, folder, partial(lists_of, (12, 12, 3)))


def _attention(folder: Path) -> Made:
    keras = _keras()
    layers = keras.layers
    steps = keras.Input((STEPS, 8))
    mixed = layers.MultiHeadAttention(2, 4)(steps, steps)
    joined = layers.LayerNormalization()(layers.Add()([steps, mixed]))
    model = keras.Model(steps, layers.Dense(2)(layers.Flatten()(joined)))
    return _made(model, folder, partial(lists_of, (STEPS, 8)))


def _subclass(folder: Path) -> Made:
    keras = _keras()

    @keras.saving.register_keras_serializable(package="tests")
    class Own(keras.Model):
        def __init__(self, **more: Any) -> None:
            super().__init__(**more)
            self.dense = keras.layers.Dense(2)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs)

    model = Own()
    model(np.zeros((1, 4), np.float32))
    model.save(folder / "model.keras")
    return Made(folder / "model.keras", numbers(ROWS, 1), numbers(FRESH, 2), lambda frame: {})


def _saved_model(folder: Path) -> Made:
    made = _layers(_dense, (4,), numbers)(folder)
    keras = _keras()
    keras.saving.load_model(made.path).export(folder / "model", format="tf_saved_model", verbose=False)
    return made._replace(path=folder / "model")


def _words(make: Callable[[Any], list[Any]]) -> Callable[[Path], Made]:
    return _layers(
        lambda layers: [layers.Embedding(50, 8, mask_zero=True), *make(layers)],
        (STEPS,),
        lambda rows, seed: whole(rows, seed, STEPS, 50),
        dtype="int32",
    )


def _recurrent() -> list[Network]:
    cells = ("LSTM", "GRU", "SimpleRNN")
    settings: list[tuple[str, Callable[[Any], list[Any]]]] = [
        *((each, lambda layers, each=each: [getattr(layers, each)(6), layers.Dense(2)]) for each in cells),
        *(
            (
                f"{each}(return_sequences=True), two of them",
                lambda layers, each=each: [
                    getattr(layers, each)(6, return_sequences=True),
                    getattr(layers, each)(4, return_sequences=True),
                ],
            )
            for each in ("LSTM", "GRU")
        ),
        ("LSTM(go_backwards=True)", lambda layers: [layers.LSTM(6, go_backwards=True)]),
        ("GRU(reset_after=False)", lambda layers: [layers.GRU(6, reset_after=False)]),
        ("GRU(activation='relu')", lambda layers: [layers.GRU(6, activation="relu")]),
        (
            "LSTM(recurrent_activation='hard_sigmoid')",
            lambda layers: [layers.LSTM(6, recurrent_activation="hard_sigmoid")],
        ),
        ("LSTM(unroll=True)", lambda layers: [layers.LSTM(6, unroll=True)]),
        ("Bidirectional(LSTM)", lambda layers: [layers.Bidirectional(layers.LSTM(6))]),
        ("Bidirectional(GRU)", lambda layers: [layers.Bidirectional(layers.GRU(6))]),
        ("Masking and LSTM", lambda layers: [layers.Masking(), layers.LSTM(6)]),
        ("TimeDistributed(Dense)", lambda layers: [layers.TimeDistributed(layers.Dense(4))]),
        ("Conv1D and LSTM", lambda layers: [layers.Conv1D(6, 3, padding="causal"), layers.LSTM(4)]),
    ]
    return [Network(name, _steps(make)) for name, make in settings]


def _open(make: Callable[[Any], list[Any]], shape: tuple[int | None, ...]) -> Callable[[Path], Made]:
    return _layers(make, shape, partial(lists_of, (STEPS, 3)))


IMAGES = partial(lists_of, (12, 12, 3))

CASES = [
    Network("Dense, BatchNormalization, Dropout, softmax", _layers(_dense, (4,), numbers)),
    Network("Dense, an .h5 file", _layers(_dense, (4,), numbers, ".h5")),
    Network("inputs and outputs by name", _by_name),
    Network("Normalization and Dense", _normalized),
    *(
        Network(
            f"Dense(activation='{each}')",
            _layers(lambda layers, each=each: [layers.Dense(5, activation=each)], (4,), numbers),
        )
        for each in ("elu", "selu", "softplus", "swish", "hard_sigmoid", "mish", "leaky_relu")
    ),
    Network(
        "Conv2D, MaxPooling2D, Flatten, Dense",
        _layers(
            lambda layers: [
                *(layers.Conv2D(6, 3, strides=2, activation="relu"), layers.MaxPooling2D()),
                *(layers.Flatten(), layers.Dense(3)),
            ],
            (12, 12, 3),
            IMAGES,
        ),
    ),
    Network("Conv2D, SeparableConv2D, Add, LayerNormalization", _residual),
    Network(
        "Conv2DTranspose and UpSampling2D",
        _layers(
            lambda layers: [layers.Conv2DTranspose(4, 3, strides=2), layers.UpSampling2D()],
            (6, 6, 3),
            partial(lists_of, (6, 6, 3)),
        ),
    ),
    Network(
        "DepthwiseConv2D(dilation_rate=2)",
        _layers(
            lambda layers: [layers.DepthwiseConv2D(3, dilation_rate=2, padding="same")], (12, 12, 3), IMAGES
        ),
    ),
    Network(
        "Conv1D of columns of numbers",
        _layers(
            lambda layers: [layers.Conv1D(4, 3), layers.GlobalMaxPooling1D()],
            (6, 2),
            lambda rows, seed: numbers(rows, seed, 12),
        ),
    ),
    Network(
        "LSTM of columns of numbers",
        _layers(lambda layers: [layers.LSTM(5)], (12, 1), lambda rows, seed: numbers(rows, seed, 12)),
    ),
    *_recurrent(),
    Network("MultiHeadAttention", _attention),
    Network("Embedding and GlobalAveragePooling1D", _words(lambda layers: [layers.GlobalAveragePooling1D()])),
    Network("Embedding(mask_zero=True) and LSTM", _words(lambda layers: [layers.LSTM(6)])),
    Network("Embedding(mask_zero=True) and GRU", _words(lambda layers: [layers.GRU(6)])),
    Network("LSTM with an open time axis", _open(lambda layers: [layers.LSTM(6)], (None, 3))),
    Network("GRU with an open time axis", _open(lambda layers: [layers.GRU(6)], (None, 3))),
    Network(
        "Conv1D with an open time axis",
        _open(lambda layers: [layers.Conv1D(4, 3), layers.GlobalMaxPooling1D()], (None, 3)),
    ),
    Network("Lambda", _layers(lambda layers: [layers.Lambda(lambda x: x * 2)], (4,), numbers)),
    Network("a subclass of Model", _subclass),
    Network("a SavedModel", _saved_model),
]
