"""The groups of libraries, each with an environment of its own; a group is named as its target of make."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import NamedTuple

from importing.cases import LIBRARIES, Case
from importing.networks import Network
from importing.networks_keras import CASES as KERAS
from importing.networks_torch import CASES as TORCH
from importing.networks_transformers import CASES as TRANSFORMERS


class Library(NamedTuple):
    """A library and what is imported of it.

    Attributes:
        module: what its environment has to have.
        distribution: whose version is shown.
        cases: in the order of the page.
    """

    module: str
    distribution: str
    cases: Sequence[Case | Network]

    @property
    def version(self) -> str:
        """The release that is installed."""
        return version(self.distribution)


DISTRIBUTIONS = {"InterpretML": "interpret-core", "XGBoost": "xgboost-cpu"}

GROUPS: Mapping[str, Mapping[str, Library]] = {
    "importing": {
        name: Library(module, DISTRIBUTIONS.get(name, name.lower()), cases())
        for name, (module, cases) in LIBRARIES.items()
    },
    "importing-torch": {
        "PyTorch": Library("torch", "torch", TORCH),
        "Transformers": Library("transformers", "transformers", TRANSFORMERS),
    },
    "importing-keras": {"Keras": Library("keras", "keras", KERAS)},
}


def environment() -> Mapping[str, str]:
    """What the processes of the cases run with: estimators are small, and threads would only wait."""
    return {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", **os.environ}
