"""Writes the models of tests/exporters/models with the exporters themselves: `make exporters`.

Each family of exporters has an environment of its own, since their dependencies do not fit together:

    make.py trees|torch|tensorflow|paddle FOLDER

A model is as its exporter wrote it, without what differs from run to run or names the machine: the names of
the graph and of nodes, the order of operator sets, documentation strings, the metadata of models and nodes
(CatBoost's history of the training, PyTorch's stack traces), and the version of the producer where it is a
text of many lines. Beside the models, FAMILY.json has rows of inputs and what the library itself answers.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import onnx

warnings.filterwarnings("ignore")

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((200, 4)).astype(np.float32)
ROWS = X[:3]
TWO, THREE = (X[:, 0] > 0).astype(int), np.digitize(X[:, 0], [-0.5, 0.5])
TEXTS = np.array(["no", "yes"])[TWO]
NUMBERS = X[:, 0] + X[:, 1]


class Folder:
    """Where the models go, and what the libraries answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Any] = {}

    def file(self, name: str) -> str:
        """The path of a model that is to be written."""
        return str(self.path / f"{name}.onnx")

    def add(self, name: str, inputs: Mapping[str, Any], *outputs: Any, model: bytes = b"") -> None:
        """Tidies a model up and notes the answers, output by output; `model` is not on disk yet."""
        path = Path(self.file(name))
        if model:
            path.write_bytes(model)
        tidy(path)
        data = path.with_name(f"{path.name}.data")
        if data.exists() and not data.stat().st_size:
            data.unlink()
        listed = {key: np.asarray(value).tolist() for key, value in inputs.items()}
        self.answers[name] = {"inputs": listed, "outputs": [np.asarray(each).tolist() for each in outputs]}

    def close(self, family: str, *packages: str) -> None:
        """Writes the answers."""
        versions = {name: version(name) for name in packages}
        text = json.dumps({"versions": versions, "models": self.answers}, indent=1, sort_keys=True)
        (self.path / f"{family}.json").write_text(f"{text}\n")


def tidy(path: Path) -> None:
    """Takes out what differs from run to run."""
    model = onnx.load(path, load_external_data=False)
    if "\n" in model.producer_version:
        model.producer_version = ""
    graph = model.graph
    graph.name = path.stem
    for node in graph.node:
        node.ClearField("name")
    parts = [model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for part in parts:
        for field in ("doc_string", "metadata_props"):
            if field in part.DESCRIPTOR.fields_by_name:
                part.ClearField(field)
    opsets = sorted(model.opset_import, key=lambda each: each.domain)  # their order is that of a set
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    path.write_bytes(model.SerializeToString(deterministic=True))


def trees(folder: Folder) -> None:
    """skl2onnx, onnxmltools with LightGBM and XGBoost, and CatBoost."""
    import catboost
    import lightgbm
    import onnxmltools
    import skl2onnx
    import xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType
    from sklearn.linear_model import LinearRegression, LogisticRegression

    def skl(name: str, model: Any, target: Any, **options: Any) -> None:
        model.fit(X, target)
        made = skl2onnx.to_onnx(model, X[:1], target_opset=17, **options).SerializeToString()
        scores = [model.predict_proba(ROWS)] if hasattr(model, "predict_proba") else []
        label = model.predict(ROWS)
        folder.add(name, {"X": ROWS}, label if scores else label[:, np.newaxis], *scores, model=made)

    skl("skl2onnx_classifier", LogisticRegression(), TWO)
    skl("skl2onnx_classifier_texts", LogisticRegression(), TEXTS)
    skl("skl2onnx_classifier_no_zipmap", LogisticRegression(), TWO, options={"zipmap": False})
    skl("skl2onnx_regressor", LinearRegression(), NUMBERS)

    def tools(name: str, model: Any, target: Any, **options: Any) -> None:
        model.fit(X, target)
        convert = onnxmltools.convert_xgboost if "xgboost" in name else onnxmltools.convert_lightgbm
        types = [("x", FloatTensorType([None, 4]))]
        made = convert(model, initial_types=types, target_opset=15, **options).SerializeToString()
        scores = [model.predict_proba(ROWS)] if hasattr(model, "predict_proba") else []
        label = model.predict(ROWS)
        folder.add(name, {"x": ROWS}, label if scores else label[:, np.newaxis], *scores, model=made)

    small = {"n_estimators": 2, "num_leaves": 3, "verbose": -1, "n_jobs": 1}
    tools("lightgbm_classifier", lightgbm.LGBMClassifier(**small), THREE)
    tools("lightgbm_classifier_no_zipmap", lightgbm.LGBMClassifier(**small), TWO, zipmap=False)
    tools("lightgbm_regressor", lightgbm.LGBMRegressor(**small), NUMBERS)
    small = {"n_estimators": 2, "max_depth": 2, "n_jobs": 1}
    tools("xgboost_classifier", xgboost.XGBClassifier(**small), TWO)
    tools("xgboost_regressor", xgboost.XGBRegressor(**small), NUMBERS)

    def cat(name: str, model: Any, target: Any, *, scores: bool = True) -> None:
        model.fit(X, target)
        model.save_model(folder.file(name), format="onnx")
        answers = [model.predict_proba(ROWS)] if scores else []
        label = model.predict(ROWS)
        folder.add(name, {"features": ROWS}, label.reshape(-1) if scores else label[:, np.newaxis], *answers)

    small = {"iterations": 2, "depth": 2, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
    cat("catboost_classifier", catboost.CatBoostClassifier(**small), TWO)
    cat("catboost_classifier_texts", catboost.CatBoostClassifier(**small), TEXTS)
    cat("catboost_regressor", catboost.CatBoostRegressor(**small), NUMBERS, scores=False)
    names = ("skl2onnx", "scikit-learn", "onnxmltools", "lightgbm", "xgboost", "catboost", "onnx")
    folder.close("trees", *names)


def torch(folder: Folder) -> None:
    """PyTorch's two exporters."""
    import torch as pytorch

    pytorch.manual_seed(0)
    net = pytorch.nn.Sequential(pytorch.nn.Linear(4, 3), pytorch.nn.ReLU(), pytorch.nn.Linear(3, 2)).eval()
    wide = pytorch.nn.Sequential(pytorch.nn.Linear(4, 64), pytorch.nn.ReLU(), pytorch.nn.Linear(64, 2)).eval()
    named = {"input_names": ["x"], "output_names": ["y"]}

    class Decoder(pytorch.nn.Module):
        def forward(self, new: Any, past: Any, mask: Any) -> Any:
            return (pytorch.cat([past, new], 1) * mask.unsqueeze(2)).sum(1)

    def export(name: str, model: Any, *given: Any, inputs: Any = None, **how: Any) -> None:
        example = tuple(pytorch.from_numpy(each) for each in given)
        pytorch.onnx.export(model, example, folder.file(name), verbose=False, **how)
        with pytorch.no_grad():
            folder.add(name, inputs or {"x": given[0]}, model(*example).numpy())

    axes = {"x": {0: "batch"}, "y": {0: "batch"}}
    export("torchscript_open", net, ROWS, dynamo=False, dynamic_axes=axes, **named)
    export("torchscript_listed", net, ROWS, dynamo=False, dynamic_axes={"x": [0], "y": [0]}, **named)
    export("torchscript_fixed", net, ROWS[:1], dynamo=False, **named)
    kept = {"keep_initializers_as_inputs": True, "dynamic_axes": axes}
    export("torchscript_weights_as_inputs", net, ROWS, dynamo=False, **kept, **named)
    batch = pytorch.export.Dim("batch")
    export("dynamo_open", net, ROWS, dynamo=True, dynamic_shapes=({0: batch},), **named)
    auto = pytorch.export.Dim.DYNAMIC
    export("dynamo_automatic", net, ROWS, dynamo=True, dynamic_shapes=({0: auto},), **named)
    export("dynamo_fixed", net, ROWS[:1], dynamo=True, **named)
    export("dynamo_weights_beside", wide, ROWS, dynamo=True, dynamic_shapes=({0: batch},), **named)
    new, past = X[:12].reshape(2, 6, 4)[:, :2], X[:12].reshape(2, 6, 4)[:, 2:5]
    mask = np.ones((2, 5), np.float32)
    shapes = tuple({0: "batch", 1: auto} for _ in range(3))
    inputs = {"new": new, "past": past, "mask": mask}
    how = {"inputs": inputs, "dynamo": True, "dynamic_shapes": shapes}
    export("dynamo_decoder", Decoder().eval(), new, past, mask, **how)
    folder.close("torch", "torch", "onnxscript", "onnx")


def tensorflow(folder: Folder) -> None:
    """tf2onnx by itself, and as Keras uses it."""
    import keras
    import tensorflow as tf
    import tf2onnx

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(3, activation="relu"), keras.layers.Dense(2, activation="softmax")]
    net = keras.Sequential([keras.Input((4,), name="x"), *layers])
    answer = net(ROWS).numpy()

    def convert(name: str, rows: int | None) -> None:
        spec = (tf.TensorSpec((rows, 4), tf.float32, "x"),)
        function = tf.function(lambda x: {"y": net(x)}, input_signature=spec)
        tf2onnx.convert.from_function(function, input_signature=spec, opset=17, output_path=folder.file(name))
        folder.add(name, {"x": ROWS[:rows]}, answer[:rows])

    convert("tf2onnx_open", None)
    convert("tf2onnx_fixed", 1)
    net.export(folder.file("keras_export"), format="onnx", verbose=False)
    folder.add("keras_export", {"x": ROWS}, answer)
    folder.close("tensorflow", "tensorflow-cpu", "keras", "tf2onnx", "onnx")


def paddle(folder: Folder) -> None:
    """paddle2onnx."""
    import paddle as framework
    import paddle2onnx

    framework.seed(0)
    net = framework.nn.Sequential(
        framework.nn.Linear(4, 3), framework.nn.ReLU(), framework.nn.Linear(3, 2), framework.nn.Softmax()
    )
    net.eval()
    answer = net(framework.to_tensor(ROWS)).numpy()
    for name, rows in (("paddle_open", None), ("paddle_fixed", 1)):
        spec = [framework.static.InputSpec([rows, 4], "float32", "x")]
        static = str(folder.path / "static")
        framework.jit.save(net, static, input_spec=spec)
        # Without its optimizer, which installs packages while it runs.
        paddle2onnx.export(
            f"{static}.json", f"{static}.pdiparams", folder.file(name), opset_version=11, optimize_tool="None"
        )
        for each in folder.path.glob("static.*"):
            each.unlink()
        folder.add(name, {"x": ROWS[:rows]}, answer[:rows])
    folder.close("paddle", "paddlepaddle", "paddle2onnx", "onnx")


FAMILIES: Mapping[str, Callable[[Folder], None]] = {
    "trees": trees,
    "torch": torch,
    "tensorflow": tensorflow,
    "paddle": paddle,
}

if __name__ == "__main__":
    family, where = sys.argv[1:]
    Path(where).mkdir(parents=True, exist_ok=True)
    FAMILIES[family](Folder(Path(where)))
