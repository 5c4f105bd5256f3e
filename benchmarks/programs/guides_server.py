"""A peer: `POST /predict` as the deployment guides write it, with FastAPI, uvicorn and ONNX Runtime.

    python benchmarks/programs/guides_server.py MODEL_FILE

Runs in KServe's environment, which has all three, and prints its address. Access logs are off and uvloop is
on, which is to its advantage.
"""

from __future__ import annotations

import os
import socket
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, as ONNX Runtime is loaded

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
app = FastAPI()


class Lead(BaseModel):
    """One record of the bundled model."""

    lead_source: str
    number_of_courses_viewed: int
    annual_income: float


@app.post("/predict")
def predict(lead: Lead) -> dict[str, float]:
    """Predicts one record."""
    inputs = {
        "lead_source": np.array([[lead.lead_source]], object),
        "number_of_courses_viewed": np.array([[lead.number_of_courses_viewed]], np.int64),
        "annual_income": np.array([[lead.annual_income]], np.float32),
    }
    label, probabilities = session.run(["label", "probabilities"], inputs)
    return {"prediction": int(label.ravel()[0]), "probability": float(probabilities[0].max())}


@app.get("/health")
def health() -> dict[str, str]:
    """Says that it serves."""
    return {"status": "ok"}


if __name__ == "__main__":
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    print(f"REST        127.0.0.1:{port}", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="warning", loop="uvloop")
