"""Finds the texts that mean what a question means: a tokenizer here, the model on the server.

python examples/text/search.py "money back" [--texts FILE] [--target HOST:PORT] [--best 3]
python examples/text/search.py --requests requests.jsonl    # the texts as the model takes them

pip install tokenizers numpy ./clients/python
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from penstock_client import Client

HERE = Path(__file__).parent
MODEL = "minilm"
EMBEDDING = "461"
"""The output with one vector a text, by the name that the exporter gave it."""
MOST_TOKENS = 128


def tokenizer(path: Path) -> Tokenizer:
    """The model's tokenizer, without padding: the server pads what it batches."""
    found = Tokenizer.from_file(str(path))
    found.no_padding()
    found.enable_truncation(MOST_TOKENS)
    return found


def requests(tokens: Tokenizer, texts: Iterable[str]) -> Iterator[dict[str, NDArray[np.int64]]]:
    """What the model takes for each text; it may leave out the mask."""
    for text in texts:
        yield {"input_ids": np.array([tokens.encode(text).ids], np.int64)}


def embed(client: Client, tokens: Tokenizer, texts: Sequence[str]) -> NDArray[np.float32]:
    """One vector of length 1 for each text: FP32 [texts, 384]."""
    answers = client.predict_stream(MODEL, requests(tokens, texts), outputs=[EMBEDDING])
    vectors = np.concatenate([each[EMBEDDING] for each in answers])
    normal: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normal


def write(tokens: Tokenizer, texts: Iterable[str], path: Path) -> None:
    """Writes the requests as JSON lines, with the mask, which only the server adds by itself."""
    with path.open("w", encoding="utf-8") as file:
        for request in requests(tokens, texts):
            ids = request["input_ids"][0].tolist()
            file.write(json.dumps({"input_ids": ids, "attention_mask": [1] * len(ids)}) + "\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="finds texts by their meaning")
    parser.add_argument("question", nargs="?", default="")
    parser.add_argument("--texts", type=Path, default=HERE / "texts.txt", help="a text a line")
    parser.add_argument("--tokenizer", type=Path, default=HERE / "models/minilm/1/tokenizer.json")
    parser.add_argument("--target", default="127.0.0.1:8001")
    parser.add_argument("--best", type=int, default=3)
    parser.add_argument("--requests", type=Path, help="write the requests of the texts here, and ask nothing")
    arguments = parser.parse_args()
    texts = arguments.texts.read_text(encoding="utf-8").splitlines()
    tokens = tokenizer(arguments.tokenizer)
    if arguments.requests:
        write(tokens, texts, arguments.requests)
        return
    with Client(arguments.target) as client:
        question, *known = embed(client, tokens, [arguments.question, *texts])
    likeness = np.array(known) @ question
    for place in np.argsort(-likeness)[: arguments.best]:
        print(f"{likeness[place]:.2f}  {texts[place]}")


if __name__ == "__main__":
    main()
