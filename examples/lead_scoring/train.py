"""Train the bundled model: will a lead, somebody who showed interest in a course, become a customer?

    python examples/lead_scoring/train.py [--repository FOLDER]

writes `FOLDER/lead_scoring/1/model.onnx`, by default into `examples/models`, and prints how well the model
does on leads that it was not trained on. It needs scikit-learn, skl2onnx and onnx; serving needs none of
them.

The data are made up, by a rule that is easy to state, so that a reader can judge the answers. For each lead:

- `lead_source`: one of five, the chances are in `SOURCES`;
- `number_of_courses_viewed`: Poisson, 2 on average;
- `annual_income`: log-normal, in dollars: half of the leads are below 60,000, two thirds between 40,000
  and 90,000;
- the log-odds of becoming a customer are -2.2, plus the weight of the source in `SOURCES`, plus 0.8 for each
  course viewed, plus 0.5 for each 25,000 dollars above 60,000 (less the same below);
- whether it became one is drawn by these odds, so no model can be right about every lead.

The whole way from the three columns to the answer is in the file: the source becomes one column per known
source (all zeros for a source never seen in training), both numbers are scaled to mean 0 and variance 1, and
a logistic regression has the last word. The seed is fixed and the solver runs to convergence, so that
training again gives the same model.
"""

# Neither scikit-learn nor skl2onnx comes with types.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

MODELS = Path(__file__).parents[1] / "models"

SEED = 7
ROWS = 20_000
HELD_OUT = 5_000

SOURCES = {  # the chance of each source, and its weight in the log-odds
    "events": (0.10, 0.4),
    "organic_search": (0.30, 0.1),
    "paid_ads": (0.25, -0.6),
    "referral": (0.15, 1.0),
    "social_media": (0.20, -0.3),
}

DESCRIPTION = (
    "Scores leads: `probabilities` holds, for each lead, the probabilities of staying away (first) and of "
    "becoming a customer (second); `label` is 1 where the second is larger. A `lead_source` that was not "
    "in the training data counts as none."
)
MODEL_VERSION = 1
OPSETS = {"": 17, "ai.onnx.ml": 3}
IR_VERSION = 8  # with these opsets, taken by ONNX Runtime 1.20 and every later release


class Leads(NamedTuple):
    """Leads, one a row.

    Attributes:
        features: object [rows, 3]: source (str), courses viewed (int) and annual income in dollars (float).
        converted: int64 [rows], 1 for those that became customers.
    """

    features: npt.NDArray[Any]
    converted: npt.NDArray[np.int64]


def make_leads(rows: int, seed: int) -> Leads:
    """Draw leads by the rule that the module's docstring states."""
    generator = np.random.default_rng(seed)
    chances, weights = (np.array(column) for column in zip(*SOURCES.values(), strict=True))
    source = generator.choice(len(SOURCES), size=rows, p=chances)
    courses = generator.poisson(2.0, size=rows)
    # Rounded to single precision, in which the served model takes it.
    income = generator.lognormal(np.log(60_000), 0.4, size=rows).astype(np.float32)
    log_odds = -2.2 + weights[source] + 0.8 * courses + 0.5 * (income - 60_000) / 25_000
    converted = generator.random(rows) < 1 / (1 + np.exp(-log_odds))
    features = np.empty((rows, 3), object)
    features[:, 0] = np.array(list(SOURCES), object)[source]
    features[:, 1], features[:, 2] = courses, income
    return Leads(features, converted.astype(np.int64))


def fit(leads: Leads) -> Pipeline:
    """Train the pipeline: one-hot and scalers, then a logistic regression."""
    columns = ColumnTransformer(
        [
            ("source", OneHotEncoder(handle_unknown="ignore"), [0]),
            ("courses", StandardScaler(), [1]),
            ("income", StandardScaler(), [2]),
        ]
    )
    # Newton's method reaches the one optimum to the last digits that single precision keeps, on any machine.
    regression = LogisticRegression(solver="newton-cholesky", tol=1e-10)
    return Pipeline([("columns", columns), ("regression", regression)]).fit(*leads)


def export(pipeline: Pipeline) -> onnx.ModelProto:
    """Turn the trained pipeline into ONNX.

    Args:
        pipeline: what `fit` gave.

    Returns:
        A model from `lead_source` string [N, 1], `number_of_courses_viewed` int64 [N, 1] and
        `annual_income` float [N, 1] to `label` int64 [N] and `probabilities` float [N, 2].
    """
    model: onnx.ModelProto = to_onnx(
        pipeline,
        name="lead_scoring",
        initial_types=[
            ("lead_source", StringTensorType([None, 1])),
            ("number_of_courses_viewed", Int64TensorType([None, 1])),
            ("annual_income", FloatTensorType([None, 1])),
        ],
        # Without this the probabilities would be a list of dictionaries, which is no tensor.
        options={"zipmap": False},
        target_opset=OPSETS,
    )
    _name_batch_axis(model)
    _describe(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _name_batch_axis(model: onnx.ModelProto) -> None:
    # One name for the first axis of everything says that row i of each output belongs to row i of each input,
    # which is what lets a server put several requests into one run.
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"


def _describe(model: onnx.ModelProto) -> None:
    model.ir_version = IR_VERSION
    model.doc_string = DESCRIPTION
    model.model_version = MODEL_VERSION
    # Which release exported it says nothing about the model, and would change the file with every upgrade.
    model.producer_version = ""
    model.domain = ""
    onnx.helper.set_model_props(model, {"author": "Penstock", "version": str(MODEL_VERSION)})


def as_inputs(features: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """The rows of `Leads.features` as the ONNX model takes them: three columns, each [rows, 1]."""
    return {
        "lead_source": features[:, [0]],
        "number_of_courses_viewed": features[:, [1]].astype(np.int64),
        "annual_income": features[:, [2]].astype(np.float32),
    }


def write(model: onnx.ModelProto, repository: Path) -> Path:
    """Write the model as version 1 of `lead_scoring` and return the file's path."""
    path = repository / "lead_scoring" / str(MODEL_VERSION) / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def main() -> None:
    """Train, say how good the model is, and write it."""
    parser = argparse.ArgumentParser(description="Train the lead scoring model.")
    parser.add_argument("--repository", type=Path, default=MODELS, help="where to write it (%(default)s)")
    repository = parser.parse_args().repository
    pipeline = fit(make_leads(ROWS, SEED))
    unseen = make_leads(HELD_OUT, SEED + 1)
    area = roc_auc_score(unseen.converted, pipeline.predict_proba(unseen.features)[:, 1])
    print(f"on {HELD_OUT:,} leads not trained on: accuracy {pipeline.score(*unseen):.3f}, ROC AUC {area:.3f}")
    path = write(export(pipeline), repository)
    print(f"{path} ({path.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
