"""Model files of XGBoost (`save_model`), in JSON or UBJSON."""

from __future__ import annotations

from pathlib import Path

from penstock.importing.boosters import Booster, of_booster


def load(path: Path) -> Booster:
    """Loads the file."""
    import xgboost

    return of_booster(xgboost.Booster(model_file=str(path)))
