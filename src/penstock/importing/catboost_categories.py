"""Categories of CatBoost as a graph has them: statistics of the training data (CTR), in tables.

CatBoost keeps hashes of categories and no names. The names come from the sample, so that has to have all of
them. For each combination of categories that trees ask about, the statistics are fixed numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penstock.importing.coded_trees import Codes, Condition, Lookup
from penstock.importing.errors import Refused

MULTIPLIER = np.uint64(0x4906BA494954CB65)
"""Of CatBoost's hash of a combination."""
EMPTY = 2**64 - 1
"""Stands where a hash table has no entry."""
MOST_ENTRIES = 2**20
"""Of a table: combinations of all categories."""
MOST_NUMBERS = 2**23
"""Of all tables together, FP32."""
COUNTED = ("Counter", "FeatureFreq")
OF_MEANS = ("BinarizedTargetMeanValue", "FloatTargetMeanValue")


class CategoryColumns:
    """The columns with categories of a model.

    Args:
        title: of the model.
        saved: the model as JSON, with the hashes of the categories in a sample.
        values: for each column with categories, in the model's order, those in the sample: texts or numbers.

    Attributes:
        codes: of the columns, by their place among all columns.
        lookups: the statistics, in the order of the model's tables.
        places: for each statistic of the model its place among the features of the graph.

    Raises:
        Refused: the sample lacks categories, or a table would be too large.
    """

    def __init__(self, title: str, saved: Mapping[str, Any], values: Sequence[Sequence[Any]]) -> None:
        self._title = title
        info = saved["features_info"]
        self._columns = info.get("categorical_features") or []
        self._floats = info.get("float_features") or []
        hashes = {each["value"]: int(each["hash"]) for each in info.get("cat_features_hash") or ()}
        self._values = values
        self._hashes = [np.array([hashes[as_text(each)] for each in own], np.uint32) for own in values]
        self.codes = {
            each["flat_feature_index"]: _codes(own) for each, own in zip(self._columns, values, strict=True)
        }
        self.lookups: list[Lookup] = []
        self.places: list[int] = []
        self._next = len(self._columns) + len(self._floats)
        self._numbers = 0
        for each in info.get("ctrs") or ():
            self._add(each, saved["ctr_data"])

    def code(self, column: int, hashed: int) -> tuple[int, float]:
        """The place of a column with categories, and the number of the category with a hash.

        Raises:
            Refused: the sample does not have it.
        """
        found = np.flatnonzero(self._hashes[column] == np.uint32(hashed % 2**32))
        if not len(found):
            raise self._lacking([column])
        return self._columns[column]["flat_feature_index"], float(found[0])

    def _lacking(self, columns: Sequence[int]) -> Refused:
        names = ", ".join(str(self._columns[each].get("feature_id", each)) for each in columns)
        return Refused(
            f"{self._title}: the sample lacks categories of {names} that the model knows, and "
            "CatBoost keeps no names of categories: give a sample that has all, such as the training data"
        )

    def _add(self, ctr: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        kinds: dict[str, list[Mapping[str, Any]]] = {}
        for each in ctr["elements"]:
            kinds.setdefault(each["combination_element"], []).append(each)
        unknown = kinds.keys() - {"cat_feature_value", "float_feature", "cat_feature_exact_value"}
        if unknown:
            raise Refused(f"{self._title}: statistics of {', '.join(unknown)} are not known")
        columns = [int(each["cat_feature_index"]) for each in kinds.get("cat_feature_value", ())]
        conditions = [
            *(self._above(each) for each in kinds.get("float_feature", ())),
            *(self._is(each) for each in kinds.get("cat_feature_exact_value", ())),
        ]
        counts = [len(self._values[each]) + 1 for each in columns]  # and one for unknown ones
        entries = int(np.prod([*counts, 2 ** len(conditions)], dtype=object))
        self._numbers += entries
        if entries > MOST_ENTRIES or self._numbers > MOST_NUMBERS:
            names = ", ".join(str(self._columns[each].get("feature_id", each)) for each in columns)
            raise Refused(
                f"{self._title}: it combines {names} with one another, {entries:,} combinations, which is "
                "more than a graph should hold: train it with max_ctr_complexity=1"
            )
        hashed, is_known = self._hashed(columns, counts, len(conditions))
        table = _statistics(ctr, data[ctr["identifier"]], hashed, is_known)
        if table is None:
            raise self._lacking(columns)
        places = [
            (self._columns[each]["flat_feature_index"], count)
            for each, count in zip(columns, counts, strict=True)
        ]
        self.lookups.append(Lookup(places, conditions, table.reshape(-1, 1)))
        self.places.append(self._next)
        self._next += 1

    def _above(self, element: Mapping[str, Any]) -> Condition:
        own = self._floats[element["float_feature_index"]]
        border = float(np.float32(element["border"]))
        return Condition(own["flat_feature_index"], border, False, own["nan_value_treatment"] == "AsTrue")

    def _is(self, element: Mapping[str, Any]) -> Condition:
        return Condition(*self.code(int(element["cat_feature_index"]), int(element["value"])), True)

    def _hashed(self, columns: Sequence[int], counts: Sequence[int], conditions: int) -> tuple[Any, Any]:
        """The hash of each entry, and whether all of its categories are known."""
        shape = (*counts, *[2] * conditions)
        hashed, is_known = np.zeros(shape, np.uint64), np.ones(shape, bool)
        with np.errstate(over="ignore"):
            for axis, (column, count) in enumerate(zip(columns, counts, strict=True)):
                own = np.append(
                    self._hashes[column].view(np.int32).astype(np.int64).view(np.uint64), np.uint64(0)
                )
                across = [1] * len(shape)
                across[axis] = count
                hashed = MULTIPLIER * (hashed + MULTIPLIER * own.reshape(across))
                is_known = is_known & (np.arange(count) < count - 1).reshape(across)
            for i in range(conditions):
                across = [1] * len(shape)
                across[len(counts) + i] = 2
                hashed = MULTIPLIER * (hashed + MULTIPLIER * np.arange(2, dtype=np.uint64).reshape(across))
        return hashed.ravel(), is_known.ravel()


def as_text(value: Any) -> str:
    """A category as CatBoost takes it."""
    if isinstance(value, bool | np.bool_ | str):
        return str(value)
    return str(int(value))


def _codes(values: Sequence[Any]) -> Codes:
    numbers = {each if isinstance(each, str) else float(each): float(i) for i, each in enumerate(values)}
    return Codes(numbers, float(len(values)), float(len(values)))


def _statistics(ctr: Mapping[str, Any], data: Mapping[str, Any], hashed: Any, is_known: Any) -> Any:
    """The statistic of each entry, FP32; None if the table has entries that are not among them."""
    stride = int(data["hash_stride"])
    flat = data["hash_map"]
    keys = np.array([int(each) for each in flat[::stride]], np.uint64)
    columns = [np.array([float(each) for each in flat[i::stride]]) for i in range(1, stride)]
    kept = keys != np.uint64(EMPTY)
    order = np.argsort(keys[kept])
    keys, columns = keys[kept][order], [each[kept][order] for each in columns]
    place = np.minimum(np.searchsorted(keys, hashed), max(len(keys) - 1, 0))
    is_found = is_known & (keys[place] == hashed) if len(keys) else np.zeros(len(hashed), bool)
    if len(np.unique(place[is_found])) != len(keys):
        return None
    good, total = _counts(ctr, columns, float(data.get("counter_denominator", 0)))
    of_unknown = float(data.get("counter_denominator", 0)) if ctr["ctr_type"] in COUNTED else 0.0
    good = np.where(is_found, good[place], 0.0).astype(np.float32)
    total = np.where(is_found, total[place], of_unknown).astype(np.float32)
    share = (good + np.float32(ctr["prior_numerator"])) / (total + np.float32(ctr["prior_denomerator"]))
    return (share + np.float32(ctr["shift"])) * np.float32(ctr["scale"])


def _counts(ctr: Mapping[str, Any], columns: Sequence[Any], denominator: float) -> tuple[Any, Any]:
    """What is divided by what, for each entry of a hash table."""
    kind, border = ctr["ctr_type"], int(ctr["target_border_idx"])
    if kind in COUNTED:
        return columns[0], np.full(len(columns[0]), denominator)
    if kind in OF_MEANS:
        return columns[0], columns[1]
    total = np.sum(columns, axis=0)
    if kind == "Buckets":
        return columns[border], total
    if kind == "Borders":
        return np.sum(columns[border + 1 :], axis=0), total
    raise Refused(f"CatBoost with statistics of the kind {kind}: they are not known")


def load_json(model: Any, frame: Any, categories: Sequence[int], folder: Any) -> Mapping[str, Any]:
    """A model as JSON, with the hashes of the categories of a table."""
    import catboost

    path = folder / "model.json"
    pool = catboost.Pool(frame, cat_features=list(categories)) if categories else None
    model.save_model(str(path), format="json", pool=pool)
    saved: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return saved
