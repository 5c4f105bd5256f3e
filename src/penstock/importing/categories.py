"""The categories that boosters of LightGBM and XGBoost have kept of pandas: what they number, and how."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from penstock.importing.coded_trees import Codes
from penstock.importing.errors import Refused

Categories: TypeAlias = Mapping[int, Sequence[Any]]
"""For each column that holds categories its place, and the categories by their number: texts or numbers."""

MOST_EXACT = 2**24
"""Whole numbers up to this one are exact in FP32."""

WAY_OUT = "encode the categories with scikit-learn's OrdinalEncoder in a Pipeline"


def are_texts(categories: Sequence[Any]) -> bool:
    """Whether categories are texts."""
    return any(isinstance(each, str) for each in categories)


def has_categories(model: Any) -> bool:
    """Whether a model is one of LightGBM or XGBoost that was fitted on categories of pandas."""
    booster = booster_of(model)
    if booster is None:
        return False
    return bool(_kept_by_lightgbm(booster)) or "c" in (getattr(booster, "feature_types", None) or ())


def booster_of(model: Any) -> Any:
    """The booster of a model of LightGBM or XGBoost; None if it is of another library or not fitted."""
    package = type(model).__module__.partition(".")[0]
    if package not in ("lightgbm", "xgboost"):
        return None
    if type(model).__name__ == "Booster":
        return model
    if package == "lightgbm":
        return getattr(model, "_Booster", None)
    return model.get_booster() if hasattr(model, "get_booster") else None


def categories_of(booster: Any, title: str) -> Categories | None:
    """The categories of a booster; None if it does not tell which columns they are of.

    Raises:
        Refused: it does not know what its numbers stand for.
    """
    if type(booster).__module__.startswith("lightgbm"):
        return _of_lightgbm(booster)
    return _of_xgboost(booster, title)


def _kept_by_lightgbm(booster: Any) -> Sequence[Sequence[Any]]:
    return getattr(booster, "pandas_categorical", None) or ()


def _of_lightgbm(booster: Any) -> Categories | None:
    # It keeps lists of categories, and which columns it compares as such: ordered ones are numbers.
    kept = _kept_by_lightgbm(booster)
    named = re.search(r"\[categorical_feature: ([\d,]*)\]", booster.model_to_string())
    places = [int(each) for each in named[1].split(",") if each] if named else []
    return dict(zip(sorted(places), kept, strict=True)) if len(places) == len(kept) else None


def _of_xgboost(booster: Any, title: str) -> Categories:
    saved = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    kept = saved.get("gbtree", saved)["model"].get("cats", {}).get("enc", [])
    found = {}
    for place, kind in enumerate(booster.feature_types):
        if kind != "c":
            continue
        own = kept[place] if place < len(kept) else {}
        if not own.get("values"):
            raise Refused(
                f"{title}: it has numbers of categories, and not what they stand for (XGBoost keeps that "
                f"from 3.1 on, for tables of pandas): train it again, or {WAY_OUT}"
            )
        if "offsets" in own and any(each < 0 or each > 127 for each in own["values"]):
            # The places where texts begin are counted in characters, and the texts are kept in UTF-8.
            raise Refused(
                f"{title}: it has categories with characters beyond ASCII, which XGBoost cuts in wrong "
                f"places when it keeps them: its own predictions depend on their order in a table; {WAY_OUT}"
            )
        found[place] = _decoded(own)
    return found


def _decoded(kept: Mapping[str, Any]) -> Sequence[Any]:
    """The categories of a column: numbers, or texts in ASCII with the place where each begins."""
    if "offsets" not in kept:
        return list(kept["values"])
    text, offsets = bytes(kept["values"]).decode(), kept["offsets"]
    return [text[begin:end] for begin, end in itertools.pairwise(offsets)]


def of_sample(booster: Any, title: str, frame: Any, names: Sequence[str]) -> Categories:
    """The categories of a booster, where it does not tell the columns: those of a sample that does.

    Raises:
        Refused: the sample does not, either.
    """
    import pandas as pd

    kept = _kept_by_lightgbm(booster)
    places = [i for i, name in enumerate(names) if isinstance(frame[name].dtype, pd.CategoricalDtype)]
    if len(places) != len(kept):
        raise Refused(
            f"{title}: it does not tell which columns hold its {len(kept)} lists of categories, as some are "
            f"ordered or were not named as categories: give a sample of Parquet in which these columns are "
            f"categories of pandas, or {WAY_OUT}"
        )
    return dict(zip(places, kept, strict=True))


def check(title: str, categories: Categories, frame: Any, names: Sequence[str], booster: Any) -> None:
    """Checks that the columns of a sample hold what the categories say.

    Raises:
        Refused: a column does not.
    """
    seen = _seen(booster)
    for place, known in categories.items():
        name, values = names[place], frame[names[place]].dropna().unique()
        if not known or not all(isinstance(each, str) == are_texts(known) for each in known):
            raise Refused(f'{title}: the categories of "{name}" are neither texts nor numbers: {WAY_OUT}')
        if len(values) and not set(values) & set(known):
            raise Refused(
                f'{title}: column "{name}" of the sample has none of its categories '
                f"({', '.join(map(str, known[:5]))}): is it the same column?"
            )
        if not are_texts(known):
            if any(abs(each) > MOST_EXACT for each in known):
                raise Refused(
                    f'{title}: categories of "{name}" are numbers beyond {MOST_EXACT:,}, which FP32 rounds: '
                    "make texts of them before training"
                )
            others = [each for i, each in enumerate(names) if i not in categories]
            if any(number >= len(known) for number in seen.get(place, ())) or any(
                set(frame[each].dropna().unique()) <= set(known) for each in others
            ):
                raise Refused(
                    f"{title}: it is not sure that the categories {', '.join(map(str, known[:5]))} are those "
                    f'of "{name}": make texts of them before training'
                )


def _seen(booster: Any) -> Mapping[int, Sequence[int]]:
    """The numbers of categories that LightGBM met in training, by column."""
    if not type(booster).__module__.startswith("lightgbm"):
        return {}
    infos = booster.dump_model(num_iteration=1).get("feature_infos", {})
    places = {name: i for i, name in enumerate(booster.feature_name())}
    return {places[name]: each.get("values", []) for name, each in infos.items() if name in places}


def as_categories(frame: Any, categories: Categories, names: Sequence[str]) -> Any:
    """The columns of a model, those with categories as pandas has them; unknown ones are categories, too."""
    import pandas as pd

    made = {}
    for place, known in categories.items():
        values = frame[names[place]]
        own = [each for each in values.dropna().unique().tolist() if each not in set(known)]
        made[names[place]] = pd.Categorical(values, categories=[*known, *own])
    return frame[list(names)].assign(**made)


def check_known(frame: Any, categories: Categories, names: Sequence[str]) -> None:
    """Checks that all categories of a table are known.

    Raises:
        ValueError: one is not.
    """
    for place, known in categories.items():
        for each in frame[names[place]].dropna().unique():
            if each not in set(known):
                raise ValueError(f'"{names[place]}" has the category {each}, which the model does not know')


def codes_of(categories: Categories) -> Mapping[int, Codes]:
    """The numbers of categories, for a graph: missing and unknown ones are missing values."""
    return {
        place: Codes(
            {
                each if isinstance(each, str) else float(np.float32(each)): float(i)
                for i, each in enumerate(known)
            },
            float("nan"),
            float("nan"),
        )
        for place, known in categories.items()
    }
