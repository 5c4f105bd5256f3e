"""Model files of XGBoost (`save_model`), in JSON or UBJSON."""

from __future__ import annotations

from pathlib import Path

from penstock.importing.original import Original
from penstock.importing.pickled import original_of


def load(path: Path) -> Original:
    """Loads the file."""
    import xgboost

    return original_of(xgboost.Booster(model_file=str(path)))
