"""Requests and answers of the Open Inference Protocol, by the messages of a peer's own distribution.

    python benchmarks/programs/oip.py request MESSAGES_MODULE MODEL INPUT_NPY REQUEST_FILE
    python benchmarks/programs/oip.py check MESSAGES_MODULE ANSWER_FILE GOLDEN_NPY

Runs in the peer's environment. The first writes a serialized ModelInferRequest with the tensor x, float32;
the second fails with a message unless a serialized ModelInferResponse holds the golden numbers as y.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np


def write_request(messages: Any, model: str, values: Path, path: Path) -> None:
    array = np.load(values)
    request = messages.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="x", datatype="FP32")
    tensor.shape.extend(array.shape)
    request.outputs.add(name="y")
    request.raw_input_contents.append(array.tobytes())
    path.write_bytes(request.SerializeToString())


def check(messages: Any, path: Path, golden: Path) -> None:
    answer = messages.ModelInferResponse.FromString(path.read_bytes())
    right = np.load(golden)
    names = [tensor.name for tensor in answer.outputs]
    if names != ["y"]:
        sys.exit(f"the answer holds {names}, not y")
    if answer.raw_output_contents:
        got = np.frombuffer(answer.raw_output_contents[0], np.float32)
    else:
        got = np.array(answer.outputs[0].contents.fp32_contents, np.float32)
    if got.size != right.size or not np.allclose(got.reshape(right.shape), right, rtol=1e-4, atol=1e-5):
        sys.exit(f"the answer is {got}, and should be {right}")


def main() -> None:
    what, module, *words = sys.argv[1:]
    messages = importlib.import_module(module)
    if what == "request":
        write_request(messages, words[0], Path(words[1]), Path(words[2]))
    else:
        check(messages, Path(words[0]), Path(words[1]))


if __name__ == "__main__":
    main()
