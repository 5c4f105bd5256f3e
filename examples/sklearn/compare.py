"""Compares a server's answers with those of the original pipeline, row by row.

python examples/sklearn/compare.py [--folder FOLDER] [--target HOST:PORT]
"""

# Neither scikit-learn nor pandas comes with types.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import argparse
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from train import LEFT, NUMBERS, TEXTS

from penstock_client import Client

MODEL = "churn"


def inputs(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """The columns as the model takes them: a missing number is NaN, a missing text is empty."""
    numbers = {name: table[[name]].to_numpy(np.float32) for name in NUMBERS}
    texts = {name: table[[name]].fillna("").to_numpy(object) for name in TEXTS}
    return {**numbers, **texts}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="compares a server with the pipeline that it serves")
    parser.add_argument(
        "--folder", type=Path, default=Path(__file__).parent, help="of churn.joblib and churn.csv"
    )
    parser.add_argument("--target", default="127.0.0.1:8001")
    arguments = parser.parse_args()
    table = pd.read_csv(arguments.folder / "churn.csv").drop(columns=LEFT)
    pipeline = joblib.load(arguments.folder / "churn.joblib")
    with Client(arguments.target) as client:
        answer = client.predict(MODEL, inputs(table))
    labels = int((answer["label"] != pipeline.predict(table)).sum())
    largest = float(np.abs(answer["probabilities"] - pipeline.predict_proba(table)).max())
    gaps = int(table.isna().any(axis=1).sum())
    print(f"{len(table)} rows, {gaps} with a missing value: {labels} labels differ, largest {largest:.0e}")


if __name__ == "__main__":
    main()
