"""What is computed of constants is what ONNX Runtime computes, or it is not computed: types wrap and round.

In each graph the constants decide whether sums run along a row, or over the rows of a batch.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from tests.models.analysis.graphs import ROW_WISE, facts, model

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
CONSTANTS = """
    k = Constant <value = int64 {100}> () one = Constant <value = int64 {1}> ()
    zero = Constant <value = int64 {0}> ()"""
CONDITIONS = {
    "a cast wraps": """
        c = Constant <value = int64 {257}> () u = Cast <to = 2> (c)
        i = Cast <to = 7> (u) g = Greater (i, k)""",
    "a signed cast wraps": """
        c = Constant <value = int64 {200}> () u = Cast <to = 3> (c)
        i = Cast <to = 7> (u) g = Greater (i, k)""",
    "a sum of int32 wraps": """
        c = Constant <value = int32 {2147483647}> () u = Add (c, c)
        i = Cast <to = 7> (u) g = Greater (i, k)""",
    "a remainder has the sign of its first": """
        c = Constant <value = int64 {-5}> () d = Constant <value = int64 {3}> () m = Mod <fmod = 1> (c, d)
        g = GreaterOrEqual (m, zero)""",
    "a sum of floats rounds": """
        c = Constant <value = float {16777216.0}> () d = Constant <value = float {1.0}> ()
        u = Add (c, d) g = Greater (u, c)""",
    "a product of floats rounds": """
        c = Constant <value = float {0.1}> () d = Constant <value = float {3.0}> ()
        e = Constant <value = float {0.3}> () u = Mul (c, d) q = Equal (u, e) g = Not (q)""",
}


def graph(condition: str) -> str:
    nodes = f"{CONSTANTS} {condition} axis = Where (g, one, zero) y = CumSum (x, axis)"
    return f"g (float[N,4] x) => (float[N,4] y) {{ {nodes} }}"


def mixes(text: str) -> bool:
    session = ort.InferenceSession(model(text).SerializeToString(), providers=["CPUExecutionProvider"])
    (together,) = session.run(None, {"x": ROWS})
    alone = [session.run(None, {"x": ROWS[n : n + 1]})[0] for n in range(len(ROWS))]
    return not np.array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)
def test_a_constant_that_wraps_or_rounds_proves_nothing(condition: str) -> None:
    found = facts(graph(condition)).verdict
    assert not (mixes(graph(condition)) and found is ROW_WISE)


def test_the_number_of_rows_as_a_narrow_integer_proves_nothing() -> None:
    """It wraps around only for more rows than a check tries."""
    text = """g (float[N,4] x) => (float[N,4] y) {
        first = Constant <value = int64 {0}> () s = Shape (x) n = Gather (s, first)
        u = Cast <to = 3> (n) i = Cast <to = 7> (u) d = Sub (n, i) f = Cast <to = 1> (d) y = Add (x, f) }"""
    assert facts(text).verdict is not ROW_WISE


def test_a_function_with_the_name_of_an_operator_proves_nothing() -> None:
    """ONNX Runtime has an operator of that name, and takes it."""
    functions = """<domain: "com.microsoft", opset_import: ["": 20]>
        DynamicQuantizeMatMul (a, b) => (c) { c = Relu (a) }"""
    text = "g (float[N,4] x) => (float[N,4] y) { y = com.microsoft.DynamicQuantizeMatMul (x, x) }"
    assert facts(text, functions=functions).verdict is not ROW_WISE
