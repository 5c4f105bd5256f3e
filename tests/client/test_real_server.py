"""Both clients against the server they are made for."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import penstock_client
from penstock.core.tensors import DataType
from penstock_client import _wire
from support import zoo
from support.dtypes import dtype_of
from support.servers import RunningServer, running_server

ROOT = Path(__file__).parents[2]
LEAD = {"lead_source": "paid_ads", "number_of_courses_viewed": 2, "annual_income": 79276}
IDENTITIES = {f"identity_{each.label.lower()}": each for each in DataType}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    models = {name: zoo.identity(datatype) for name, datatype in IDENTITIES.items()}
    models |= {"scale": {1: zoo.scale(1.0), 2: zoo.scale(2.0)}, "any": zoo.rank_unknown()}
    with running_server(zoo.repository(tmp_path_factory.mktemp("models"), models)) as server:
        yield server


@pytest.fixture(scope="module")
def examples() -> Iterator[RunningServer]:
    with running_server(ROOT / "examples" / "models") as server:
        yield server


def values(datatype: DataType) -> np.ndarray:
    if datatype is DataType.BYTES:
        return np.array([["", "a", "🦄"], ["ü", "null\0inside", "b"]], object)
    if datatype is DataType.BOOL:
        return np.array([[True, False, True], [False, False, True]])
    return np.array([[0, 1, 2], [3, 96, 7]]).astype(dtype_of(datatype))


@pytest.mark.parametrize("name", IDENTITIES)
def test_every_datatype_goes_there_and_back(real, connect, name) -> None:
    client = connect(real.target)
    array = values(IDENTITIES[name])
    streamed = list(client.predict_stream(name, [{"x": array}] * 3))
    for result in [client.predict(name, {"x": array}), *streamed]:
        assert result["y"].dtype == array.dtype
        assert result["y"].tolist() == array.tolist()


def test_answers_that_look_alike_are_parsed_once(real, connect, monkeypatch) -> None:
    """The client recognises the layout of an answer: the varying fields stand where it expects them."""
    seen, parse = [], _wire.parsed

    def noting(data: bytes) -> object:
        seen.append(data)
        return parse(data)

    monkeypatch.setattr(_wire, "parsed", noting)
    client = connect(real.target)
    for value in range(20):
        array = np.full((1, 3), value, np.float32)
        assert client.predict("scale", {"x": array})["y"][0, 0] == 2 * value
    assert len(seen) <= 2


def test_versions_are_chosen_by_number(real, connect) -> None:
    client = connect(real.target)
    for version, factor in (("", 2), ("1", 1), (2, 2)):
        result = client.predict("scale", {"x": [1.0, 2.0, 3.0]}, version=version)
        assert result["y"].tolist() == [[factor, 2 * factor, 3 * factor]]
    assert [(each.name, each.version) for each in client.models() if each.name == "scale"] == [
        ("scale", "1"),
        ("scale", "2"),
    ]
    with pytest.raises(penstock_client.NotFound):
        client.model("scale", 3)


def test_open_ranks_take_any_shape(real, connect) -> None:
    client = connect(real.target)
    assert client.model("any").inputs[0].shape is None
    for shape in [(2,), (1, 2, 3)]:
        assert client.predict("any", {"x": np.ones(shape, np.float32)})["y"].shape == shape


@pytest.mark.parametrize("ordered", [True, False])
def test_a_stream_with_items_that_the_server_refuses(real, connect, ordered) -> None:
    client = connect(real.target)
    items = [{"x": np.full((1, 4 if each % 100 == 50 else 3), each, np.float32)} for each in range(1000)]
    results = sorted(
        client.predict_stream("scale", items, version=1, ordered=ordered, errors="return"),
        key=lambda each: 0 if ordered else each.index,
    )
    assert [each.index for each in results] == list(range(1000))
    for index, result in enumerate(results):
        if index % 100 == 50:
            assert isinstance(result, penstock_client.InvalidInput)
        else:
            assert result["y"][0, 0] == index


@pytest.mark.parametrize("ordered", [True, False])
def test_the_items_of_a_stream_have_ids_and_so_have_their_errors(real, connect, ordered) -> None:
    def inputs(index: int) -> dict[str, object]:
        bad = {7: np.zeros((1, 4), np.float32), 9: "a text"}  # refused by the server, and by the client
        return {"x": bad.get(index, np.full((1, 3), index, np.float32))}

    items = [
        penstock_client.StreamItem(inputs(each), id=f"räw-{each}") if each % 2 else inputs(each)
        for each in range(40)
    ]
    results = list(
        connect(real.target).predict_stream("scale", items, version=1, ordered=ordered, errors="return")
    )
    said = {each.index: each.id for each in results}
    assert said == {each: f"räw-{each}" if each % 2 else "" for each in range(40)}
    failed = {each.index for each in results if isinstance(each, penstock_client.InvalidInput)}
    assert failed == {7, 9}


def test_an_item_has_inputs_an_id_and_a_sequence_or_is_refused(real, connect) -> None:
    with pytest.raises(TypeError, match="the id of an item is a str, not 5"):
        penstock_client.StreamItem({}, id=5)
    with pytest.raises(UnicodeEncodeError):
        penstock_client.StreamItem({}, id="\ud800")
    item = penstock_client.StreamItem({"x": np.zeros((1, 3), np.float32)}, id="a", sequence=5)
    [refused] = connect(real.target).predict_stream("scale", [item], errors="return")
    assert (refused.id, refused.index) == ("a", 0)
    assert "a sequence is a Sequence or the id of one" in str(refused)
    step = penstock_client.StreamItem(item.inputs, id="b", sequence="s")
    [refused] = connect(real.target).predict_stream("scale", [step], version=1, errors="return")
    assert refused.id == "b"
    assert isinstance(refused, penstock_client.PenstockError), "the model keeps no state"


def test_the_bundled_model_scores_a_lead(examples, connect) -> None:
    client = connect(examples.target)
    result = client.predict("lead_scoring", LEAD, id="one")
    assert (result["label"].shape, result["probabilities"].shape, result.id) == ((1,), (1, 2), "one")
    assert result["probabilities"].sum() == pytest.approx(1.0)
    assert result.timing.batch_rows >= 1
    assert result.timing.compute_seconds > 0
    batch = client.predict("lead_scoring", {name: [value] * 5 for name, value in LEAD.items()})
    np.testing.assert_allclose(batch["probabilities"], np.repeat(result["probabilities"], 5, 0), rtol=1e-5)
    assert (client.health(), client.health("lead_scoring"), client.health("none")) == (
        "SERVING",
        "SERVING",
        "UNKNOWN",
    )
    info = client.model("lead_scoring")
    assert [str(each) for each in info.inputs] == ["BYTES[N,1]", "INT64[N,1]", "FP32[N,1]"]
    assert (info.state, info.is_default, info.batching.enabled) == ("READY", True, True)


@pytest.mark.parametrize("number", [0, 1])
def test_the_readme_is_true(examples, tmp_path, number) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "clients/python/README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    assert "127.0.0.1:8001" in blocks[number]
    script = tmp_path / "example.py"
    script.write_text(blocks[number].replace("127.0.0.1:8001", examples.target))
    ran = subprocess.run(
        [sys.executable, "-W", "error", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert re.fullmatch(r"\[[01]\]" if number else r"\[[01]\] \(1, 2\) 1", lines[0])
    assert [line.split()[0] for line in lines[1:]] == ([] if number else [str(n) for n in range(1000)])


PAGE = re.findall(r"```python\n(.*?)```", (ROOT / "docs/in-a-service.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("code", PAGE)
def test_the_page_about_services_is_true(examples, tmp_path, code) -> None:
    """Each line that prints says in a comment what it prints."""
    if "import pandas" in code:
        pytest.importorskip("pandas")
    script = tmp_path / "example.py"
    script.write_text(code.replace("127.0.0.1:8001", examples.target))
    command = [sys.executable, "-W", "error", script]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert examples.target in script.read_text()
    printed = re.findall(r"print\(.*\)  # (.*)", code)
    assert sorted(ran.stdout.splitlines()) == sorted(printed)


def test_the_page_about_services_has_examples() -> None:
    assert len(PAGE) == 4
