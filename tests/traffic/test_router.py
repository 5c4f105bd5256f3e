"""A name and a version or label lead to the model that answers, or to a list of what there is."""

from __future__ import annotations

import pytest

from penstock.core.errors import NotFound
from penstock.core.names import LISTED
from penstock.models.model import Model
from penstock.traffic.router import Router
from support.work import model, signature_of, spec

SIGNATURE = signature_of([spec("x")], [spec("y")])


def make(name: str, version: int, *labels: str, default: bool = False) -> Model:
    made = model(SIGNATURE, name=name, version=version)
    made.labels, made.is_default = labels, default
    return made


def router_of(*models: Model) -> Router:
    router = Router()
    router.set(models)
    return router


def refusal(router: Router, name: str, version: str = "") -> str:
    with pytest.raises(NotFound) as refused:
        router.find(name, version)
    assert refused.value.__suppress_context__
    return str(refused.value)


OLD, NEW, OTHER = (
    make("a", 1, "stable", "old"),
    make("a", 10, "new", default=True),
    make("b", 3, default=True),
)
ROUTER = router_of(OLD, NEW, OTHER)


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [
        ("a", "1", OLD),
        ("a", "10", NEW),
        ("a", "stable", OLD),
        ("a", "old", OLD),
        ("a", "new", NEW),
        ("a", "", NEW),
        ("b", "", OTHER),
        ("b", "3", OTHER),
    ],
)
def test_every_way_to_a_model(name: str, version: str, found: Model) -> None:
    assert ROUTER.find(name, version) is found


@pytest.mark.parametrize("version", ["2", "01", " 1", "1.0", "Stable", "3"])
def test_a_version_that_is_not_there(version: str) -> None:
    assert refusal(ROUTER, "a", version) == (
        f"model a has no version or label {version!r}; it has 1, 10, new, old, stable"
    )


def test_versions_are_listed_by_number() -> None:
    router = router_of(*(make("a", number) for number in (10, 9, 1, 100)))
    assert refusal(router, "a").endswith("it has 1, 9, 10, 100")


@pytest.mark.parametrize("name", ["c", "A", "a/1"])
def test_a_model_that_is_not_there(name: str) -> None:
    assert refusal(ROUTER, name, "1") == f"no model {name!r}; available: a, b"


def test_no_name_of_a_model() -> None:
    assert refusal(ROUTER, "") == "the request names no model; available: a, b"


def test_no_models_at_all() -> None:
    assert refusal(Router(), "a") == "no model 'a'; available: none"


def test_many_models_are_not_all_listed() -> None:
    router = router_of(*(make(f"m{number:03}", 1) for number in range(LISTED + 5)))
    text = refusal(router, "n")
    assert text.endswith("m019 and 5 more")
    assert text.count(", ") == LISTED - 1


@pytest.mark.parametrize(("name", "version"), [("x" * 10**6, ""), ("a", "9" * 10**6)])
def test_a_name_of_any_length_leads_to_a_short_message(name: str, version: str) -> None:
    """It travels in the headers that end a call: clients refuse those above 8 KiB."""
    text = refusal(ROUTER, name, version)
    assert len(text) < 300
    assert "..." in text


def test_setting_routes_again_replaces_them_all() -> None:
    router = router_of(OLD, OTHER)
    router.set([NEW])
    assert router.find("a", "") is NEW
    assert "it has 10, new" in refusal(router, "a", "stable")
    assert refusal(router, "b") == "no model 'b'; available: a"
