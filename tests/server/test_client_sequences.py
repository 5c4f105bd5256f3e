"""What the clients say of sequences: with a call, with the items of a stream, and of what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import penstock_client
from penstock_client import Sequence
from support import zoo
from support.servers import RunningServer, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    made = {"sum": zoo.running_sum(), "identity": zoo.identity()}
    path = zoo.repository(tmp_path_factory.mktemp("kept"), made)
    (path / "sum" / "model.toml").write_text('[sequence]\nstate = { sum = "sumN" }\n')
    with running_server(path) as running:
        yield running


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("transport", ["auto", "unary", "stream"])
@pytest.mark.parametrize(
    ("sequence", "error", "said"),
    [
        (Sequence(""), ValueError, "the id of a sequence must not be empty: only predict_stream has"),
        (Sequence(start=True), ValueError, "the id of a sequence must not be empty: only predict_stream has"),
        ("", ValueError, "the id of a sequence must not be empty: only predict_stream has"),
        (7, TypeError, "a sequence is a Sequence or the id of one, not 7"),
    ],
)
def test_a_call_names_its_sequence(
    server: RunningServer,
    transport: Any,
    asynchronous: bool,
    sequence: Any,
    error: type[Exception],
    said: str,
) -> None:
    async def ask() -> None:
        async with penstock_client.AsyncClient(server.target, transport=transport) as client:
            await client.predict("sum", {"x": 1}, sequence=sequence)

    if asynchronous:
        with pytest.raises(error, match=said):
            asyncio.run(ask())
        return
    with (
        penstock_client.Client(server.target, transport=transport) as client,
        pytest.raises(error, match=said),
    ):
        client.predict("sum", {"x": 1}, sequence=sequence)


def streamed(target: str, asynchronous: bool, items: list[Any], model: str = "sum") -> list[Any]:
    """The sums, and the errors in their places, of a stream of one of the clients."""

    async def ask() -> list[Any]:
        async with penstock_client.AsyncClient(target) as client:
            return [each async for each in client.predict_stream(model, items, errors="return")]

    if asynchronous:
        results = asyncio.run(ask())
    else:
        with penstock_client.Client(target) as client:
            results = list(client.predict_stream(model, items, errors="return"))
    return [
        int(each["y"][0, 0]) if isinstance(each, penstock_client.Prediction) else each for each in results
    ]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_item_of_the_client_s_stream_may_say_its_sequence(
    server: RunningServer, asynchronous: bool
) -> None:
    items = [
        {"x": 1},
        ({"x": 10}, Sequence("own", start=True)),
        ({"x": 2}, Sequence()),
        ({"x": 20}, "own"),
        ({"x": 4}, Sequence(end=True)),
        {"x": 8},
        ({"x": 16}, Sequence("", start=True)),
        {"x": 32},
        ({"x": 64}, 7),
        ({"x": 64}, Sequence(), Sequence()),
        {"x": 64},
    ]
    got = streamed(server.target, asynchronous, items)
    assert type(lost := got.pop(5)) is penstock_client.FailedPrecondition
    assert str(lost).startswith("the stream's sequence cannot continue: it has ended; send a step with start")
    no_sequence, no_inputs = got[7:9]
    assert type(no_sequence) is type(no_inputs) is penstock_client.InvalidInput
    assert str(no_sequence) == "a sequence is a Sequence or the id of one, not 7"
    assert str(no_inputs).startswith("inputs are a dict by name, not tuple")
    assert [*got[:7], *got[9:]] == [1, 10, 3, 30, 7, 16, 48, 112]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_whose_first_step_failed_begins_afresh(server: RunningServer, asynchronous: bool) -> None:
    items = [{"x": 5000}, ({"x": 3}, Sequence(start=True)), {"x": 4}]
    failed, *sums = streamed(server.target, asynchronous, items)
    assert isinstance(failed, penstock_client.ModelFailed)
    assert sums == [3, 7]


def test_a_stream_of_a_model_without_state_takes_no_sequence(server: RunningServer) -> None:
    (refused,) = streamed(server.target, False, [({"x": 1}, Sequence())], model="identity")
    assert isinstance(refused, penstock_client.InvalidInput)


def test_an_id_alone_is_a_step_of_that_sequence(server: RunningServer) -> None:
    with penstock_client.Client(server.target) as client:
        client.predict("sum", {"x": 1}, sequence=Sequence("short", start=True))
        assert client.predict("sum", {"x": 2}, sequence="short")["y"] == 3
        client.predict("sum", {"x": 4}, sequence=Sequence("short", end=True))
        with pytest.raises(penstock_client.FailedPrecondition, match="sequence short has no state"):
            client.predict("sum", {"x": 8}, sequence="short")
