"""Models whose values decide how much work they are, and models that only look like it."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest

from penstock.models.analysis.unbounded import unbounded_node

HEAD = '<ir_version: 9, opset_import: ["" : 20, "own" : 1, "com.microsoft" : 1]>'
BODY = "body (int64 i, bool go, float[N] a) => (bool more, float[N] b) { more = Identity(go) b = Neg(a) }"

UNBOUNDED = {
    "Loop": f"none = Constant <value = bool {{1}}> () y = Loop (n, none, x) <body = {BODY}>",
    "Range": "s = Constant <value = int64 {0}> () d = Constant <value = int64 {1}> () y = Range (s, n, d)",
    "ConstantOfShape": "y = ConstantOfShape (n1)",
    "Expand": "y = Expand (x, n1)",
    "Tile": "y = Tile (x, n1)",
    "GreedySearch": "y = com.microsoft.GreedySearch (n1, n1)",
}
BOUNDED = {
    "plain": "y = Relu (x)",
    "a shape's length": "s = Shape (x) y = ConstantOfShape (s)",
    "expanded to a shape": "s = Shape (x) y = Expand (x, s)",
    "a constant size": "k = Constant <value = int64[1] {4}> () y = ConstantOfShape (k)",
    "as many steps as there are": f"""
        s = Shape (x) k = Squeeze (s) none = Constant <value = bool {{1}}> ()
        y = Loop (k, none, x) <body = {BODY}>""",
    "branches alike": """
        c = Cast <to = 9> (n)
        y = If (c) <then_branch = a () => (float[N] p) { p = Relu (x) },
                    else_branch = b () => (float[N] q) { q = Neg (x) }>""",
    "values found": "y = NonZero (x)",
}


def found(nodes: str) -> str:
    text = f"{HEAD} g (float[N] x, int64 n, int64[1] n1) => (float[M] y) {{ {nodes} }}"
    return unbounded_node(onnx.parser.parse_model(text))


@pytest.mark.parametrize("title", UNBOUNDED)
def test_what_values_decide(title: str) -> None:
    assert title in found(UNBOUNDED[title])


@pytest.mark.parametrize("title", BOUNDED)
def test_what_shapes_decide(title: str) -> None:
    assert found(BOUNDED[title]) == ""


def test_a_length_that_was_found_is_a_value() -> None:
    assert "Expand" in found("z = NonZero (x) s = Shape (z) y = Expand (x, s)")


def test_in_a_branch_and_in_a_function() -> None:
    inner = """
        c = Cast <to = 9> (n)
        y = If (c) <then_branch = a () => (float[N] p) { p = Tile (x, n1) },
                    else_branch = b () => (float[N] q) { q = Neg (x) }>"""
    assert "in it node 0 Tile" in found(inner)
    nodes = "y = own.Many (x, n1)"
    text = f"""{HEAD} g (float[N] x, int64[1] n1) => (float[M] y) {{ {nodes} }}
        <opset_import: ["": 20], domain: "own"> Many (a, n) => (b) {{ b = Tile (a, n) }}"""
    assert "in it node 0 Tile" in unbounded_node(onnx.parser.parse_model(text))


def test_a_branch_that_is_far_more_than_the_other() -> None:
    many = " ".join(f"p{number + 1} = Neg (p{number})" for number in range(40))
    nodes = f"""
        c = Cast <to = 9> (n)
        y = If (c) <then_branch = a () => (float[N] p40) {{ p0 = Relu (x) {many} }},
                    else_branch = b () => (float[N] q) {{ q = Neg (x) }}>"""
    assert "If" in found(nodes)


def test_a_loop_that_ends_by_its_values() -> None:
    nodes = """
        k = Constant <value = int64 {100}> () none = Constant <value = bool {1}> ()
        y = Loop (k, none, x) <body = body (int64 i, bool go, float[N] a) => (bool more, float[N] b) {
            s = ReduceMax <keepdims = 0> (a) z = Constant <value = float {0}> () more = Greater (s, z)
            b = Neg (a) }>"""
    assert "Loop" in found(nodes)
