#!/usr/bin/env bash
# XGBoost takes an unknown category of pandas for the next known one in alphabetical order, without a word; only one
# behind the last is an error. And categories with accents are mixed up: its predictions depend on the order of the
# categories in the table, or are wrong even in the order of training.
#
# Versions: xgboost 3.2.0, pandas 3.1.1; Python 3.11, Linux.
#
# Why: since 3.1 a model keeps its categories, to be independent of their order in a table. One that is unknown is
# looked for by bisection, and what is found is not compared again. The texts are kept in UTF-8, with the places where
# each begins counted in characters: all after the first accent are cut in wrong places.
#
# Seen on 2026-11-30, with models that give each category its number, 0 to 2:
#   bus, unknown: 1
#   car, unknown: 1
#   tv, unknown: 2
#   zoo, unknown: an error
#   ads mail web: 0 1 2
#   web mail ads: 0 1 2
#   café naïve rôle: 0 1 2
#   rôle naïve café: 2 2 2
#   é ö ü: 0 1 0
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  xgboost-cpu==3.2.0 pandas==3.1.1 scikit-learn==1.9.1 numpy==2.4.6

"$folder/venv/bin/python" -W ignore - <<'PYTHON' >"$folder/seen"
import numpy as np
import pandas as pd
import xgboost


def fitted(names):
    """A model that gives each category its place."""
    place = np.repeat(np.arange(len(names)), 200)
    table = pd.DataFrame({"kind": pd.Categorical(np.array(names)[place], categories=names)})
    return xgboost.XGBRegressor(enable_categorical=True, n_estimators=60, n_jobs=1).fit(table, place)


def ask(model, value, categories):
    table = pd.DataFrame({"kind": pd.Categorical([value], categories=categories)})
    try:
        return f"{abs(float(model.predict(table)[0])):.0f}"
    except xgboost.core.XGBoostError:
        return "an error"


plain, accents, short = ["ads", "mail", "web"], ["café", "naïve", "rôle"], ["é", "ö", "ü"]
model = fitted(plain)
for unknown in ("bus", "car", "tv", "zoo"):
    print(f"{unknown}, unknown: {ask(model, unknown, [unknown])}")
for trained, order in ((plain, plain), (plain, plain[::-1]), (accents, accents), (accents, accents[::-1]), (short, short)):
    model = fitted(trained)
    print(f"{' '.join(order)}: {' '.join(ask(model, each, order) for each in trained)}")
PYTHON

cat "$folder/seen"
sed -n 's/^#   \(.*: .*\)/\1/p' "$0" | diff - "$folder/seen"
