"""Hugging Face folders: networks of Transformers that take tokens, pixels or samples of sound."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penstock.importing.errors import LacksColumns, Refused, exporting
from penstock.importing.graph_ends import finished
from penstock.importing.hard_rows import TEXTS
from penstock.importing.table import Inputs, as_tensor, column, holds_lists, list_column

TOKENS = ("input_ids", "attention_mask", "token_type_ids")
"""The inputs that hold whole numbers, one a token."""
LONGEST = 512
"""The most tokens of a text, unless the model takes fewer."""
ROWS = 64
"""How many rows the original gets at a time."""
GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForSeq2SeqLM")


def load(path: Path) -> Transformer:
    """Loads the folder.

    Raises:
        Refused: it is served as it is, or its network cannot be exported.
    """
    name = _architecture(path)
    import transformers

    found = getattr(transformers, name, None)
    if found is None:
        raise Refused(
            f"{path}: Transformers {transformers.__version__} has no {name}: install the release that its "
            "config.json names"
        )
    return Transformer(_model(found, path), _tokenizer(path))


def _architecture(path: Path) -> str:
    """The name of the class that the network is of.

    Raises:
        Refused: one file and golden rows do not say what it does, or its code is not of Transformers.
    """
    if sum(1 for _ in path.rglob("*.onnx")) == 1:
        raise Refused(f"{path} has an ONNX file already: penstock serve {path}")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        names = list(config.get("architectures") or [])
    except (ValueError, AttributeError, TypeError) as error:
        raise Refused(f"{path}: its config.json cannot be read: {error}") from error
    by_hand = (
        f"write it with `optimum-cli export onnx --model {path} OUT`, then put it into "
        "models/NAME/1/model.onnx, and golden rows beside it (docs/importing.md)"
    )
    if not names:
        raise Refused(
            f"{path}: its config.json names no architecture: save it with model.save_pretrained; or {by_hand}"
        )
    if "auto_map" in config:
        raise Refused(f"{path}: {names[0]} is code in the folder, which is not run here: {by_hand}")
    if config.get("is_encoder_decoder") or names[0].endswith(GENERATES):
        raise Refused(
            f"{path}: {names[0]} generates token by token and keeps a cache between them, which one graph "
            f"does not: {by_hand}"
        )
    return str(names[0])


def _model(found: Any, path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return found.from_pretrained(path, local_files_only=True, dtype=torch.float32).eval()
    except Exception as error:  # whatever the files raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise Refused(f"{path}: Transformers cannot load it: {said}") from error


def _tokenizer(path: Path) -> Any:
    """The tokenizer in the folder; None if there is none."""
    import transformers

    if not any((path / each).is_file() for each in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # whatever the files raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise Refused(f"{path}: its tokenizer cannot be loaded: {said}") from error


class Transformer:
    """A network whose inputs are lists of numbers; see `Original`.

    Args:
        model: a `PreTrainedModel`.
        tokenizer: of the folder, if it has one.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self._tokenizer = model, tokenizer
        self.title = f"Transformers {type(model).__name__}"
        self.libraries: Sequence[str] = ["transformers", "tokenizers", "torch", "onnxscript"]
        self._main = str(model.main_input_name)
        self._names: Sequence[str] = ()
        self._outputs: Sequence[str] = ()
        self._example: Mapping[str, Any] = {}
        self._of_texts: Sequence[str] = ()

    def texts(self, columns: Sequence[str]) -> Iterable[str]:
        """See `Original`."""
        return ()

    def prepared(self, frame: Any) -> Any:
        """The sample with the inputs of the network: texts become tokens, filled up to the longest.

        Raises:
            Refused: it has neither inputs nor texts.
        """
        if self._main in frame.columns:
            return frame
        texts = [each for each in frame.columns if not holds_lists(frame[each]) and column(frame, each).text]
        if self._main != "input_ids" or self._tokenizer is None or not 1 <= len(texts) <= 2:
            why = "" if self._main != "input_ids" else ", or one column of texts (two, for pairs of texts)"
            why += " and a tokenizer in the folder" if why and self._tokenizer is None else ""
            raise LacksColumns(
                f"the sample lacks the column {self._main} of lists of numbers{why}; it has "
                f"{', '.join(frame.columns)}",
                [self._main],
            )
        self._of_texts = texts
        return self._tokens(frame[texts].fillna(""))

    def _tokens(self, texts: Any) -> Any:
        """A table of tokens for a table of one or two texts."""
        import pandas as pd

        most = min(
            LONGEST,
            int(getattr(self.model.config, "max_position_embeddings", LONGEST) or LONGEST),
            int(self._tokenizer.model_max_length),
        )
        given = [texts[each].astype(str).tolist() for each in texts.columns]
        can_fill = self._tokenizer.pad_token is not None
        if not can_fill and len(texts) > 1:
            raise Refused(
                f"{self.title}: its tokenizer has no token to fill up with: set pad_token, and save it"
            )
        made = self._tokenizer(*given, padding=can_fill, truncation=True, max_length=most)
        return pd.DataFrame({name: list(made[name]) for name in TOKENS if name in made})

    def inputs(self, frame: Any, vector: bool) -> Inputs:
        """See `Original`."""
        if vector:
            raise Refused(
                "--as vector takes columns of single numbers; a list of numbers is a vector already"
            )
        wanted = TOKENS if self._main == "input_ids" else (self._main,)
        self._names = [each for each in wanted if each in frame.columns]
        columns = [list_column(frame, each)._replace(whole=each in TOKENS) for each in self._names]
        if len({each.shape for each in columns}) > 1:
            raise Refused(f"the columns {', '.join(self._names)} hold lists of different lengths")
        self._example = self._tensors(frame[:2] if len(frame) > 1 else frame.iloc[[0, 0]])
        return Inputs(columns)

    def hard_rows(self, frame: Any, left_out: Collection[str]) -> Iterator[tuple[str, Any]]:
        """Texts that are hard, each of a length of its own, and rows that are shorter."""
        if self._main != "input_ids":
            return
        if self._of_texts and "texts" not in left_out:
            import pandas as pd

            for each in (*TEXTS, ""):
                yield "texts", self._tokens(pd.DataFrame({name: [each] for name in self._of_texts}))
        length = len(frame.iloc[0][self._main])
        bases = frame.iloc[[0, len(frame) - 1]][list(self._names)]
        for short in sorted({1, 2, length // 2} - {0}) if "extremes" not in left_out else ():
            yield "extremes in length", bases.map(lambda values, short=short: list(values)[:short])

    def _tensors(self, frame: Any) -> dict[str, Any]:
        import torch

        kinds = {name: np.int64 if name in TOKENS else np.float32 for name in self._names}
        return {name: torch.from_numpy(as_tensor(frame[name], kind)) for name, kind in kinds.items()}

    def predict(self, frame: Any) -> Mapping[str, Any]:
        """See `Original`."""
        import torch

        parts = []
        for i in range(0, len(frame), ROWS):
            with torch.no_grad():
                made = self.model(**self._tensors(frame[i : i + ROWS]), return_dict=True)
            rows = min(ROWS, len(frame) - i)
            parts.append(
                {
                    name: each.numpy().astype(np.float64)
                    for name, each in made.items()
                    if isinstance(each, torch.Tensor) and each.ndim and len(each) == rows
                }
            )
        self._outputs = list(parts[0])
        return {name: np.concatenate([each[name] for each in parts]) for name in self._outputs}

    def convert(self, inputs: Inputs) -> Any:
        """See `Original`."""
        try:
            from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("transformers"):
                raise
            raise Refused(
                f"{self.title}: this release of Transformers has no exporter to ONNX: pip install "
                "'transformers>=5.24'"
            ) from error
        import onnx_ir

        with exporting(self.title):
            config = OnnxConfig(dynamic=True)
            exported = OnnxExporter().export(self.model, dict(self._example), config=config)
            made = onnx_ir.to_proto(exported.program)
        return finished(made, inputs, self._own_outputs(made.graph))

    def _own_outputs(self, graph: Any) -> Sequence[str]:
        """The names of the graph's outputs, which are those of the original.

        Raises:
            Refused: they are others.
        """
        names = [each.name for each in graph.output]
        if sorted(names) != sorted(self._outputs):
            raise Refused(
                f"{self.title}: the exported graph gives {', '.join(names)}, the original "
                f"{', '.join(self._outputs)}"
            )
        return names
