"""The largest number that scales to a threshold or below."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from penstock.importing.folded_scalers import _scale, largest_below

VALUES = np.random.default_rng(0).normal(50_000, 9_000, 300).reshape(-1, 1)


@pytest.mark.parametrize(
    "scaler",
    [
        StandardScaler(), StandardScaler(with_mean=False), StandardScaler(with_std=False), RobustScaler(),
        MinMaxScaler(), MinMaxScaler((-3, 0.1), clip=True), MaxAbsScaler(),
    ],
    ids=str,
)  # fmt: skip
def test_each_value_falls_on_the_side_of_its_scaled_value(scaler: object) -> None:
    scaled = scaler.fit(VALUES).transform(VALUES).ravel()
    found = largest_below(_scale(scaler, 0), scaled)
    assert (found >= VALUES.ravel()).all()
    one = _scale(scaler, 0)
    assert (one(VALUES.ravel()) == scaled).all()
    assert (one(found) <= scaled).all()
    assert (one(np.nextafter(found, np.inf)) > scaled)[np.isfinite(found)].all()


def test_ends() -> None:
    clipped = _scale(MinMaxScaler(clip=True).fit(VALUES), 0)
    low, high, never = largest_below(clipped, np.array([0.0, 1.0, -0.1]))
    assert low == pytest.approx(VALUES.min())
    assert (high, never) == (np.inf, -np.inf)
    plain = _scale(StandardScaler().fit(VALUES), 0)
    assert largest_below(plain, np.array([np.inf])).tolist() == [np.inf]
