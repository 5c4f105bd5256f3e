"""What is compared of an answer: what clients rely on, without messages and what describes the server."""

from __future__ import annotations

import re
from typing import Any

CODE = re.compile(r"'code': '(\w+)'")
COUNTS = ("inference_count", "execution_count", "success", "fail", "queue", "compute_infer", "batches of")
SHARED = {"add", "alone", "deep", "fails", "identity", "identity_bytes", "integers", "labelled", "multi",
          "scale", "slow"}  # fmt: skip
"""The models that both servers have."""


def summary(answer: Any) -> Any:
    """An answer of `programs/transcript.py` in short."""
    if isinstance(answer, list):
        return [summary(each) for each in answer]
    for key, shortened in BY_KEY.items():
        if key in answer:
            return shortened(answer)
    if any(key == "OK" or CODE.search(key) for key in answer):
        return sorted(code[1] if (code := CODE.search(key)) else key for key in answer)
    return answer


def _on_a_stream(answer: dict[str, Any]) -> Any:
    told = answer["infer_response"]
    return {"error": True, **told} if "error_message" in answer else told


def _config(answer: dict[str, Any]) -> Any:
    config = answer["config"]
    return {
        "name": config["name"],
        "input": config["input"],
        "output": config["output"],
        "batched": config["max_batch_size"] >= 32,
        "dynamic": "dynamic_batching" in config,
        "kinds": [each["kind"] for each in config["instance_group"]],
    }


def _named(answer: dict[str, Any], key: str) -> Any:
    found = [each for each in answer[key] if each["name"] in SHARED]
    return sorted(f"{each['name']} {each['version']} {each.get('state', '')}" for each in found)


def _counted(answer: dict[str, Any]) -> Any:
    more = {name: count for name, count in answer["more"].items() if count and name.startswith(COUNTS)}
    return {"ends": answer["ends"], "more": more}


BY_KEY = {
    "code": lambda answer: answer["code"],
    "infer_response": _on_a_stream,
    "config": _config,
    "model_stats": lambda answer: _named(answer, "model_stats"),
    "models": lambda answer: _named(answer, "models"),
    "platform": lambda answer: {key: value for key, value in answer.items() if key != "platform"},
    "extensions": list,
    "more": _counted,
}
