"""The values of real requests are not kept in the cache, and the line to try has them all the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.test_learned import Started, entries, repository
from support import zoo

SECRET = 98765.25


def test_the_cache_holds_no_values_of_real_requests(tmp_path: Path) -> None:
    root = repository(tmp_path, {"m": zoo.add()}, '[sample]\nfile = "r.npz"\n')
    rows = np.full((4, 3), SECRET, np.float32)
    np.savez(root / "m/r.npz", a=rows, b=rows)
    for _ in range(2):
        (model,) = Started(root, tmp_path / "cache").told
        assert {name: array.tolist() for name, array in model.example.items()} == {
            "a": [[SECRET] * 3],
            "b": [[SECRET] * 3],
        }
    (entry,) = entries(tmp_path / "cache")
    assert b'"example":{}' in entry.read_bytes().replace(b" ", b"")


def test_what_was_made_up_beside_them_is_kept(tmp_path: Path) -> None:
    root = repository(tmp_path, {"m": zoo.add()}, '[sample]\nfile = "r.npz"\n\n[sample.values]\nb = 2.5\n')
    np.savez(root / "m/r.npz", a=np.full((4, 3), SECRET, np.float32))
    for _ in range(2):
        (model,) = Started(root, tmp_path / "cache").told
        assert model.example["a"].tolist() == [[SECRET] * 3]
        assert model.example["b"].tolist() == [[2.5] * 3]
