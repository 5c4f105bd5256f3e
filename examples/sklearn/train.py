"""Trains a pipeline on a table as people have it: numbers and texts, and some of both missing.

    python examples/sklearn/train.py [--to FOLDER]

writes `churn.csv`, the customers that the pipeline is not trained on, and `churn.joblib`, the pipeline. It
needs scikit-learn and pandas. The customers are made up: those on a monthly contract, with a high bill and
many calls to the help desk, leave more often. The seed is fixed.
"""

# Neither scikit-learn nor pandas comes with types.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import argparse
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

NUMBERS = ["months", "bill", "calls"]
TEXTS = ["contract", "city"]
CITIES = ["Zürich", "São Paulo", "New York", "Łódź"]
LEFT = "left"
"""The column that the pipeline predicts."""


def customers(count: int, seed: int) -> pd.DataFrame:
    """Made-up customers; every tenth value of `bill`, `calls` and `city` is missing."""
    random = np.random.default_rng(seed)
    months, bill = random.integers(1, 72, count), random.gamma(4.0, 15.0, count).round(2)
    calls = random.poisson(1.5, count).astype(float)
    contract = random.choice(["monthly", "yearly"], count)
    odds = -1.5 + 1.6 * (contract == "monthly") + 0.02 * (bill - 60) + 0.5 * (calls - 1.5) - 0.02 * months
    table = pd.DataFrame(
        {
            "months": months,
            "bill": bill,
            "calls": calls,
            "contract": contract,
            "city": random.choice(CITIES, count),
            LEFT: np.where(random.random(count) < 1 / (1 + np.exp(-odds)), "yes", "no"),
        }
    )
    for name in ("bill", "calls", "city"):
        table.loc[random.random(count) < 0.1, name] = None
    return table


def pipeline() -> Pipeline:
    """Fills in what is missing, makes columns of the texts, and puts a forest on top."""
    texts = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="unknown"), OneHotEncoder(handle_unknown="ignore")
    )
    columns = ColumnTransformer(
        [("numbers", SimpleImputer(strategy="median"), NUMBERS), ("texts", texts, TEXTS)]
    )
    forest = RandomForestClassifier(n_estimators=50, max_depth=8, random_state=0)
    return Pipeline([("columns", columns), ("forest", forest)])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="trains a pipeline and writes it beside a table")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent, help="default: %(default)s")
    arguments = parser.parse_args()
    table, others = customers(2000, 1), customers(500, 2)
    model = pipeline().fit(table[NUMBERS + TEXTS], table[LEFT])
    right = model.score(others[NUMBERS + TEXTS], others[LEFT])
    joblib.dump(model, arguments.to / "churn.joblib")
    others.to_csv(arguments.to / "churn.csv", index=False)
    print(f"{right:.1%} of {len(others)} customers are told right; wrote churn.joblib and churn.csv")


if __name__ == "__main__":
    main()
