"""Pickles and joblib files: whatever object they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock.importing.categories import has_categories
from penstock.importing.errors import Refused
from penstock.importing.original import Original


def load(path: Path) -> Original:
    """Loads the object, which runs code of the file.

    Raises:
        Refused: it cannot be loaded, or is not a model.
    """
    import joblib

    try:
        loaded = joblib.load(path)  # reads plain pickles, too
    except ModuleNotFoundError:
        raise
    except Exception as error:  # whatever the pickle raises
        raise Refused(
            f"{path}: it cannot be loaded: {type(error).__name__}: {error}; was it saved with other releases "
            "of its libraries?"
        ) from error
    return original_of(loaded)


def original_of(model: Any) -> Original:
    """The original that an object is.

    Raises:
        Refused: it is not a model that is known.
    """
    package = type(model).__module__.partition(".")[0]
    name = type(model).__name__
    if package == "catboost":
        from penstock.importing.catboost_file import CatBoost

        return CatBoost(model)
    if package == "interpret":
        from penstock.importing.interpret_models import Explainable

        return Explainable(model)
    if has_categories(model):
        from penstock.importing.boosters_on_categories import OnCategories

        return OnCategories(model)
    if name == "Booster" and package in ("lightgbm", "xgboost"):
        from penstock.importing.boosters import of_booster

        return of_booster(model)
    if package == "torch" or _is_module(model):
        from penstock.importing.torch_file import of_module

        return of_module(model)
    if package in ("keras", "tensorflow"):
        raise Refused(f"a pickled {package} object: save it as a .keras file")
    if isinstance(model, dict):
        raise Refused(f"the file holds a dict with {', '.join(map(str, model))}: save the model alone")
    if not (hasattr(model, "predict") or hasattr(model, "transform")):
        raise Refused(
            f"the file holds a {type(model).__module__}.{name}, which has neither predict nor transform"
        )
    from penstock.importing.scikit_learn import ScikitLearn

    return ScikitLearn(model)


def _is_module(model: Any) -> bool:
    """Whether an object is a module of PyTorch, of a class of its own."""
    return any(each.__module__.startswith("torch.") for each in type(model).__mro__)
