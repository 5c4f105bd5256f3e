"""Model files of LightGBM (`booster.save_model`)."""

from __future__ import annotations

from pathlib import Path

from penstock.importing.original import Original
from penstock.importing.pickled import original_of


def load(path: Path) -> Original:
    """Loads the file."""
    import lightgbm

    return original_of(lightgbm.Booster(model_file=str(path)))
