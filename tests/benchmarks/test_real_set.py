"""The realistic set has the requests that it says, and its table compares what belongs together."""

from __future__ import annotations

from benchmarks import real_set

ALL = ("unary", "stream", "shared", "mixed")


def test_requests_differ_in_what_services_send() -> None:
    one, other = (real_set.request("text", True, number) for number in (1, 2))
    assert (one.model, other.model) == ("lead_scoring_01", "lead_scoring_02")
    assert one.id != other.id
    assert len(one.id) == len(other.id)
    assert one.metadata["traceparent"] != other.metadata["traceparent"]
    assert one.timeout == other.timeout
    assert one.timeout.seconds == 30
    plain = real_set.request("raw", False)
    assert plain.model == "tiny_mlp"
    assert (plain.id, dict(plain.metadata), plain.HasField("timeout")) == ("", {}, False)
    assert real_set.request("typed", False).inputs["x"].float_values
    assert real_set.request("raw", True, real_set.MODELS).model == "tiny_mlp_00"


def test_a_canary_gets_one_request_after_the_other() -> None:
    sent = [real_set.request("raw", False, number, real_set.CANARY) for number in (1, 2, 3)]
    assert [(each.model, each.version) for each in sent] == [
        ("tiny_mlp_canary", "2"), ("tiny_mlp_canary", "1"), ("tiny_mlp_canary", "2")
    ]  # fmt: skip


def test_every_kind_of_call_meets_every_content_and_number_of_models() -> None:
    names = list(real_set.lines(ALL))
    assert len(names) == len(set(names)) == 18 + 18 + 8 + 2
    assert set(real_set._mixed()) <= set(names), "each part of the mixed load is measured alone as well"
    assert set(real_set._mixed()) <= set(real_set.lines(["mixed"]))
    assert list(real_set.lines(["shared"])) == [name for name in names if name.startswith("shared")]


def test_ratios_are_those_of_the_same_kind_and_round() -> None:
    found = {
        "unary raw False 1": [10.0, 20.0],
        "unary typed True 20": [15.0, 40.0],
        "stream raw False 1": [2.0, 2.0],
        "mixed": [6.0, 8.0],
        "mean of the parts": [4.0, 8.0],
    }
    lines = list(real_set.table(found))
    assert lines[0] == (
        "| calls | values | 1 model | 1 model, fields | 2 versions | 2 versions, fields | 20 models | "
        "20 models, fields |"
    )
    assert lines[2] == "| unary | raw | 15.0 µs, 1.00 |  |  |  |  |  |"
    assert lines[3] == "| unary | typed |  |  |  |  |  | 27.5 µs, 1.75 (1.50 to 2.00) |"
    assert lines[4] == "| stream | raw | 2.0 µs, 1.00 |  |  |  |  |  |"
    assert lines[5] == "\nMixed: 7.0 µs, 1.25 (1.00 to 1.50)"
    assert len(lines) == 6
