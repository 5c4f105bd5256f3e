"""Folders of MLflow: the file of the flavor that is in them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from penstock.importing.errors import Refused
from penstock.importing.original import Original

FLAVORS = {
    "sklearn": ("pickled_model", "pickled"),
    "lightgbm": ("data", "lightgbm_file"),
    "xgboost": ("data", "xgboost_file"),
    "catboost": ("data", "catboost_file"),
    "onnx": ("data", "onnx_file"),
    "keras": ("data", "keras_file"),
    "tensorflow": ("data", "keras_file"),
    "pytorch": ("model_data", "torch_file"),
}
"""For each flavor the key with its file's name, and the module that loads that."""

IN_FOLDER = {
    "keras": ("model.keras", "model.h5", "model"),
    "tensorflow": ("model.keras", "model.h5", "model"),
    "pytorch": ("model.pt2", "model.pth"),
}
"""What the file is called where a flavor names its folder; a SavedModel is a folder itself."""

BY_FORMAT = {".pkl": "pickled", ".pickle": "pickled", ".joblib": "pickled", ".skops": "skops_file"}


def load(path: Path) -> Original:
    """Loads the model of the first flavor that is known.

    Raises:
        Refused: there is no such file.
    """
    import yaml

    flavors: Mapping[str, Mapping[str, Any]] = yaml.safe_load((path / "MLmodel").read_text(encoding="utf-8"))[
        "flavors"
    ]
    for name, (key, module) in FLAVORS.items():
        if name not in flavors:
            continue
        file = _file(path, name, str(flavors[name].get(key, "")))
        own = BY_FORMAT.get(file.suffix, module)
        original: Original = import_module(f"penstock.importing.{own}").load(file)
        return original
    raise Refused(f"{path}: its flavors are {', '.join(flavors)}; expected one of {', '.join(FLAVORS)}")


def _file(path: Path, flavor: str, said: str) -> Path:
    """The file that a flavor names, or the one in the folder that it names.

    Raises:
        Refused: there is none.
    """
    named = path / said
    names = IN_FOLDER.get(flavor)
    if names is None:
        if not named.is_file():
            raise Refused(f"{path}: its flavor {flavor} names {named.name}, which is no file")
        return named
    for each in names:
        if (named / each).exists():
            return named / each
    raise Refused(f"{path}: its flavor {flavor} has none of {', '.join(names)} in {said or 'the folder'}")
