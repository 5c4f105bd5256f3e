"""Files of skops: scikit-learn's models without pickle."""

from __future__ import annotations

from pathlib import Path

from penstock.importing.errors import Refused
from penstock.importing.original import Original
from penstock.importing.pickled import original_of

TRUSTED = ("sklearn.", "numpy.", "scipy.", "builtins.", "lightgbm.", "xgboost.", "collections.")
"""Packages whose types are taken from a file that is trusted (`Kind.danger`); those of others are refused."""


def load(path: Path) -> Original:
    """Loads the model.

    Raises:
        Refused: the file needs types of unknown packages.
    """
    from skops.io import get_untrusted_types
    from skops.io import load as load_skops

    untrusted = get_untrusted_types(file=path)
    unknown = [each for each in untrusted if not each.startswith(TRUSTED)]
    if unknown:
        raise Refused(f"{path}: it needs types that are not known to be safe: {', '.join(unknown)}")
    return original_of(load_skops(path, trusted=untrusted))
