"""Finds out what a file or folder is, without loading it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import NamedTuple

from penstock.importing.errors import Refused


class Kind(NamedTuple):
    """What a model file is.

    Attributes:
        name: the module of this package that loads it.
        title: in words.
        danger: what loading it does, if one should trust the file before; "" if it is only read.
    """

    name: str
    title: str
    danger: str = ""


RUNS_CODE = "runs code that is in it, as you"
BELIEVED = "believes the trees that it holds: wrong ones make a process read memory that is not theirs"

PICKLE = Kind("pickled", "a pickle", RUNS_CODE)
SKOPS = Kind("skops_file", "a skops file", BELIEVED)
LIGHTGBM = Kind("lightgbm_file", "a LightGBM model")
XGBOOST = Kind("xgboost_file", "an XGBoost model")
CATBOOST = Kind("catboost_file", "a CatBoost model")
KERAS = Kind("keras_file", "a Keras model", "may run code that is in it, as you")
TORCH = Kind("torch_file", "a model of PyTorch", RUNS_CODE)
MLFLOW = Kind("mlflow_folder", "an MLflow model", RUNS_CODE)
HUGGING_FACE = Kind("hugging_face", "a Hugging Face model")
ONNX = Kind("onnx_file", "an ONNX model")

BY_SUFFIX = {
    ".joblib": PICKLE,
    ".pkl": PICKLE,
    ".pickle": PICKLE,
    ".skops": SKOPS,
    ".cbm": CATBOOST,
    ".ubj": XGBOOST,
    ".keras": KERAS,
    ".h5": KERAS,
    ".pt2": TORCH,
    ".onnx": ONNX,
}
MORE = ".json of XGBoost, .txt of LightGBM, a folder of MLflow or Hugging Face"


def kind_of(path: Path) -> Kind:
    """What a file or folder is.

    Raises:
        Refused: it is not there, or not known.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise Refused(f"{path}: there is no such file")
    with path.open("rb") as file:
        begin = file.read(256)
    suffix = path.suffix.lower()
    if suffix in (".pt", ".pth"):
        return _torch(path)
    kind = _by_content(begin) or BY_SUFFIX.get(suffix) or (PICKLE if begin[:1] == b"\x80" else None)
    if kind is None:
        raise Refused(f"{path}: not known as a model; expected one of {', '.join(BY_SUFFIX)}, .pt, {MORE}")
    return kind


def _folder(path: Path) -> Kind:
    if (path / "MLmodel").is_file():
        return MLFLOW
    if (path / "saved_model.pb").is_file():
        return KERAS
    if (path / "config.json").is_file():
        return HUGGING_FACE
    raise Refused(
        f"{path}: a folder without MLmodel (MLflow), saved_model.pb (TensorFlow) or config.json "
        "(Hugging Face)"
    )


def _by_content(begin: bytes) -> Kind | None:
    if begin.startswith(b"tree\nversion="):
        return LIGHTGBM
    if begin.startswith(b"CBM1"):
        return CATBOOST
    return XGBOOST if begin.lstrip().startswith(b"{") and b"learner" in begin else None


def _torch(path: Path) -> Kind:
    """An archive of torch: an exported program, a TorchScript, or a pickle of a module or of weights alone.

    Raises:
        Refused: it has no graph.
    """
    names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    if any(name.endswith(("data.pkl", "constants.pkl", "models/model.json")) for name in names):
        return TORCH
    raise Refused(
        f"{path}: this file of PyTorch has weights or pickled classes, but no graph; write one with "
        "torch.export.save(torch.export.export(model, (example,), dynamic_shapes=...), 'model.pt2')"
    )
