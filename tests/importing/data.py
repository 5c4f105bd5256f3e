"""Made-up tables: numbers, missing values, categories and texts, and targets that depend on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

CITIES = ("Zürich", "Paris", "São Paulo", "Oslo", "東京")
WORDS = (
    "the quick Brown fox-trot",
    "don't panic, it's 3.14",
    "Ünïcode CAFÉ à la carte",
    "naïve señor 42",
    "a b of the and",
    "großer Straßenlärm",
)


def table(rows: int, seed: int, fresh: bool = False) -> Any:
    """A table with its targets: `y` of two classes, `y3` of three named ones, `count` and `amount`.

    Args:
        rows: how many.
        seed: of the values.
        fresh: whether categories and texts occur that the training data lacks.
    """
    random = np.random.default_rng(seed)
    cities = (*CITIES, "Unseen") if fresh else CITIES
    codes = (10, 20, 21, 40, 99) if fresh else (10, 20, 21, 40)
    texts = [f"{random.choice(WORDS)} {random.choice(WORDS)}" for _ in range(rows)]
    made = pd.DataFrame(
        {
            "a": random.normal(0, 1, rows),
            "b": random.normal(50_000, 9_000, rows),
            "c": random.integers(0, 9, rows),
            "d": random.gamma(2.0, 0.1, rows),
            "gap": np.where(random.random(rows) < 0.2, np.nan, random.normal(3, 2, rows)),
            "zero": np.where(random.random(rows) < 0.4, 0.0, random.normal(0, 1, rows)),
            "city": random.choice(cities, rows),
            "plan": np.where(random.random(rows) < 0.15, None, random.choice(["free", "Pro", "team"], rows)),
            "note": texts,
        }
    )
    signal = (
        made["a"] + (made["b"] - 50_000) / 9_000 + made["c"] / 9 + np.nan_to_num(made["gap"], nan=4.0) / 4
    )
    signal += (made["city"] == "Paris") * 1.0 + made["note"].str.contains("CAFÉ") * 0.8 + made["zero"]
    signal += random.normal(0, 0.5, rows)
    flags = random.random(rows) < np.where(signal > 1, 0.8, 0.3)
    gaps = random.random(rows) < 0.2
    made["flag"] = np.where(gaps, np.nan, flags.astype(object))  # as read_csv reads booleans with gaps
    made["maybe"] = np.where(gaps, None, flags.astype(object))  # as a database gives them
    made["tier"] = np.where(
        random.random(rows) < 0.15, None, random.choice(["low", "high"], rows).astype(object)
    )
    made["tier"] = made["tier"].astype(object)  # also where pandas makes texts of it
    made["size"] = random.choice(["S", "M", "L"], rows)
    made["code"] = random.choice(codes, rows)
    made["y"] = (signal > signal.median()).astype(int)
    made["y3"] = np.array(["low", "middle", "high"])[np.digitize(signal, np.quantile(signal, [0.3, 0.6]))]
    made["count"] = random.poisson(np.exp(np.clip(signal / 3, -2, 2)))
    made["amount"] = np.exp(np.clip(signal / 3, -2, 2)) + 0.1
    return made


TARGETS = ("y", "y3", "count", "amount")
