"""Model files of LightGBM (`booster.save_model`)."""

from __future__ import annotations

from pathlib import Path

from penstock.importing.boosters import Booster, of_booster


def load(path: Path) -> Booster:
    """Loads the file."""
    import lightgbm

    return of_booster(lightgbm.Booster(model_file=str(path)))
