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
}
"""For each flavor the key with its file's name, and the module that loads that."""

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
        file = path / str(flavors[name].get(key, ""))
        if not file.is_file():
            raise Refused(f"{path}: its flavor {name} names {file.name}, which is no file")
        own = BY_FORMAT.get(file.suffix, module)
        original: Original = import_module(f"penstock.importing.{own}").load(file)
        return original
    raise Refused(f"{path}: its flavors are {', '.join(flavors)}; expected one of {', '.join(FLAVORS)}")
