"""Networks of Transformers: small ones with made-up weights, made from a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from importing.data import table
from importing.networks import Made, Network, lists

ROWS, FRESH = 60, 80
SMALL = {
    "vocab_size": 400,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
DISTIL = {
    "vocab_size": 400,
    "dim": 16,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 24,
    "max_position_embeddings": 64,
}


def _tokenizer(folder: Path) -> Any:
    """A tokenizer of words, made of the texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made.train_from_iterator(
        table(200, 3)["note"], trainers.WordPieceTrainer(vocab_size=300, special_tokens=special)
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)
    return fast


def _model(name: str, config: str, settings: Mapping[str, Any], folder: Path) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config)(**settings)).eval()
    model.save_pretrained(folder)
    return model


def _answer(model: Any, kinds: Mapping[str, Any]) -> Callable[[Any], Mapping[str, Any]]:
    def answer(frame: Any) -> Mapping[str, Any]:
        import torch

        given = {
            name: torch.from_numpy(np.stack([np.asarray(each, kind) for each in frame[name]]))
            for name, kind in kinds.items()
            if name in frame
        }
        with torch.no_grad():
            made = model(**given, return_dict=True)
        return {name: each.numpy() for name, each in made.items() if isinstance(each, torch.Tensor)}

    return answer


def _of_texts(
    name: str, config: str, columns: tuple[str, ...] = ("note",), **settings: Any
) -> Callable[[Path], Made]:
    """A network of texts, imported with texts, and asked with tokens."""

    def made(folder: Path) -> Made:
        import pandas as pd

        path = folder / "model"
        tokenizer = _tokenizer(path)
        model = _model(name, config, settings, path)
        kinds = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), np.int64)
        if "distil" in config.lower() or "roberta" in config.lower():
            tokenizer.model_input_names = ["input_ids", "attention_mask"]
            tokenizer.save_pretrained(path)
        texts = table(FRESH, 2)[list(columns)].fillna("")
        tokens = tokenizer(*(texts[each].tolist() for each in columns), padding=True)
        fresh = pd.DataFrame({each: list(tokens[each]) for each in kinds if each in tokens})
        return Made(path, table(ROWS, 1)[list(columns)], fresh, _answer(model, kinds))

    return made


def _of_lists(name: str, config: str, column: str, *shape: int, **settings: Any) -> Callable[[Path], Made]:
    def made(folder: Path) -> Made:
        path = folder / "model"
        model = _model(name, config, settings, path)
        sample, fresh = (
            lists(rows, seed, *shape).rename(columns={"values": column})
            for rows, seed in ((ROWS, 1), (FRESH, 2))
        )
        return Made(path, sample, fresh, _answer(model, {column: np.float32}))

    return made


def _of_tokens(folder: Path) -> Made:
    """The same network without a tokenizer, imported with tokens."""
    import pandas as pd

    path = folder / "model"
    model = _model("BertForSequenceClassification", "BertConfig", SMALL, path)
    random = np.random.default_rng(0)

    def rows(count: int) -> Any:
        tokens = random.integers(4, 60, (count, 9))
        lengths = random.integers(2, 10, count)
        mask = np.arange(9) < lengths[:, None]
        return pd.DataFrame({"input_ids": list(tokens * mask), "attention_mask": list(mask.astype(int))})

    kinds = {"input_ids": np.int64, "attention_mask": np.int64}
    return Made(path, rows(ROWS), rows(FRESH), _answer(model, kinds))


CASES = [
    Network("BertModel", _of_texts("BertModel", "BertConfig", **SMALL)),
    Network(
        "BertForSequenceClassification, three classes",
        _of_texts("BertForSequenceClassification", "BertConfig", num_labels=3, **SMALL),
    ),
    Network(
        "BertForSequenceClassification, pairs of texts",
        _of_texts("BertForSequenceClassification", "BertConfig", ("note", "city"), **SMALL),
    ),
    Network("BertForSequenceClassification, no tokenizer", _of_tokens),
    Network("BertForTokenClassification", _of_texts("BertForTokenClassification", "BertConfig", **SMALL)),
    Network(
        "DistilBertForSequenceClassification",
        _of_texts("DistilBertForSequenceClassification", "DistilBertConfig", **DISTIL),
    ),
    Network(
        "RobertaForSequenceClassification",
        _of_texts(
            "RobertaForSequenceClassification", "RobertaConfig", **{**SMALL, "max_position_embeddings": 70}
        ),
    ),
    Network("MPNetModel", _of_texts("MPNetModel", "MPNetConfig", **{**SMALL, "max_position_embeddings": 70})),
    Network(
        "ViTForImageClassification",
        _of_lists(
            "ViTForImageClassification",
            "ViTConfig",
            "pixel_values",
            *(3, 16, 16),
            **{
                key: SMALL[key]
                for key in SMALL
                if key not in ("vocab_size", "max_position_embeddings", "pad_token_id")
            },
            image_size=16,
            patch_size=8,
        ),
    ),
    Network(
        "GPT2LMHeadModel",
        _of_texts("GPT2LMHeadModel", "GPT2Config", vocab_size=400, n_embd=16, n_layer=1, n_head=2),
    ),
    Network(
        "T5ForConditionalGeneration",
        _of_texts(
            "T5ForConditionalGeneration",
            "T5Config",
            vocab_size=400,
            d_model=16,
            d_kv=8,
            d_ff=16,
            num_layers=1,
            num_heads=2,
        ),
    ),
]
