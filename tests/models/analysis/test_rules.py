"""What the analysis says of small graphs made by hand, for each family of operators, both ways."""

from __future__ import annotations

import pytest

from tests.models.analysis.graphs import MIXES, ROW_WISE, UNKNOWN, facts, of_nodes

ROWS_APART = {
    "relu": "y = Relu (x)",
    "bias": "b = Constant <value = float[4] {1,2,3,4}> () y = Add (x, b)",
    "clip": "low = Constant <value = float {0.0}> () y = Clip (x, low)",
    "softmax": "y = Softmax <axis = -1> (x)",
    "mean of a row": "y = ReduceMean <keepdims = 1> (x, one) ",
    "best of a row": "y = ArgMax <axis = 1, keepdims = 0> (x)",
    "sorted in a row": "k = Constant <value = int64[1] {2}> () y, i = TopK <axis = 1> (x, k)",
    "sums in a row": "axis = Constant <value = int64 {1}> () y = CumSum (x, axis)",
    "turned and back": "t = Transpose (x) s = Softmax <axis = 0> (t) y = Transpose <perm = [1, 0]> (s)",
    "flattened": "a = Reshape (x, image) y = Flatten (a)",
    "merged and back": "a = Reshape (x, pairs) b = Relu (a) y = Reshape (b, fours)",
    "by its own shape": "s = Shape (x) y = Reshape (x, s)",
    "by the number of rows": """
        s = Shape <start = 0, end = 1> (x) rest = Constant <value = int64[1] {-1}> ()
        t = Concat <axis = 0> (s, rest) y = Reshape (x, t)""",
    "a token for each row": """
        s = Shape <start = 0, end = 1> (x) w = Constant <value = int64[1] {2}> () t = Concat <axis = 0> (s, w)
        token = Constant <value = float[1,2] {1, 2}> () e = Expand (token, t) y = Concat <axis = 1> (e, x)""",
    "zeros for each row": "s = Shape (x) z = ConstantOfShape (s) y = Add (x, z)",
    "split and joined": "a, b = Split <axis = 1, num_outputs = 2> (x) y = Concat <axis = 1> (b, a)",
    "columns": "i = Constant <value = int64[2] {3, 0}> () y = Gather <axis = 1> (x, i)",
    "all rows": """
        a = Constant <value = int64[1] {0}> () b = Constant <value = int64[1] {9223372036854775807}> ()
        y = Slice (x, a, b, a)""",
    "joined and split": """
        a = Neg (x) b = Concat <axis = 0> (x, a) c, y = Split <axis = 0, num_outputs = 2> (b)""",
    "product": "w = Constant <value = float[4,2] {1,2,3,4,5,6,7,8}> () y = MatMul (x, w)",
    "gemm": "w = Constant <value = float[2,4] {1,2,3,4,5,6,7,8}> () y = Gemm <transB = 1> (x, w)",
    "einsum": 'y = Einsum <equation = "bi,bi->b"> (x, x)',
    "where": "z = Constant <value = float {0.0}> () c = Greater (x, z) n = Neg (x) y = Where (c, x, n)",
    "one scale for all": """
        s = Constant <value = float {0.1}> () q = QuantizeLinear (x, s) y = DequantizeLinear (q, s)""",
    "dropout": "y = Dropout (x)",
    "trees": "y = ai.onnx.ml.Scaler <offset = [0.0], scale = [2.0]> (x)",
    "gelu": "y = com.microsoft.QuickGelu (x)",
    "own function": "y = own.Twice (x)",
}
CONSTANTS = """
<int64[1] one = {1}, int64[4] image = {0, 1, 2, 2}, int64[2] pairs = {-1, 2}, int64[2] fours = {-1, 4},
 int64[1] zero = {0}>"""
FUNCTIONS = """
<opset_import: ["": 20], domain: "own"> Twice (a) => (b) { b = Add (a, a) }
<opset_import: ["": 20], domain: "own"> Centred (a) => (b) {
  axis = Constant <value = int64[1] {0}> () m = ReduceMean (a, axis) b = Sub (a, m) }"""

ROWS_MIX = {
    "softmax": ("y = Softmax <axis = 0> (x)", "node 0 Softmax is taken over all rows"),
    "mean": ("m = ReduceMean (x, zero) y = Sub (x, m)", "node 0 ReduceMean combines all rows"),
    "mean of all": ("m = ReduceMean (x) y = Sub (x, m)", "node 0 ReduceMean combines all rows"),
    "largest of all": ("m = ReduceMax <keepdims = 0> (x) y = Div (x, m)", "combines all rows"),
    "best row": ("i = ArgMax <axis = 0> (x) y = Identity (i)", "looks for a place among all rows"),
    "sorted": ("k = Shape <start = 0, end = 1> (x) y, i = TopK <axis = 0> (x, k)", "node 1 TopK sorts rows"),
    "sums": ("a = Constant <value = int64 {0}> () y = CumSum (x, a)", "adds up rows one after another"),
    "turned": ("t = Transpose (x) s = Softmax <axis = -1> (t) y = Transpose (s)", "node 1 Softmax"),
    "attention": (
        "t = Transpose (x) s = MatMul (x, t) w = Softmax (s) y = MatMul (w, x)",
        "node 1 MatMul sets every row against every row",
    ),
    "product of columns": (
        "t = Transpose (x) s = MatMul (t, x) y = MatMul (x, s)",
        "node 1 MatMul sums over all rows",
    ),
    "pairs": (
        "a = Unsqueeze (x, zero) b = Unsqueeze (x, one) y = Sub (a, b)",
        "sets every row against every row",
    ),
    "torn": (
        "t = Transpose (x) y = Reshape (t, fours)",
        "node 1 Reshape lays out the values anew, across rows",
    ),
    "first row": (
        "i = Constant <value = int64 {0}> () f = Gather (x, i) y = Sub (x, f)",
        "takes rows by their place",
    ),
    "divided by count": (
        "s = Shape <start = 0, end = 1> (x) f = Cast <to = 1> (s) y = Div (x, f)",
        "node 2 Div takes the number of rows as a value",
    ),
    "numbered": (
        """s = Shape (x) i = Constant <value = int64 {0}> () j = Constant <value = int64 {1}> ()
           n = Gather (s, i) r = Range (i, n, j) f = Cast <to = 1> (r) u = Unsqueeze (f, one)
           y = Add (x, u)""",
        "Add depends on the place of a row in the batch",
    ),
    "rows in pairs": (
        "a = Reshape (x, pairs) b = Transpose (a) y = Softmax (b)",
        "node 2 Softmax is taken over all rows",
    ),
    "one scale": (
        "q, s, z = DynamicQuantizeLinear (x) y = DequantizeLinear (q, s, z)",
        "node 0 DynamicQuantizeLinear takes one scale over the whole batch",
    ),
    "training": (
        """s = Constant <value = float[4] {1,1,1,1}> ()
           y, m, v = BatchNormalization <training_mode = 1> (x, s, s, s, s)""",
        "takes a mean and a variance over the whole batch",
    ),
    "some rows": (
        """z = Constant <value = float {0.0}> () c = Greater (x, z) n = NonZero (c) y = Cast <to = 1> (n)""",
        "node 2 NonZero finds places, so that a length depends on values",
    ),
    "different rows": ("y = Unique <axis = 0> (x)", "drops equal values"),
    "pooled rows": (
        "a = Unsqueeze (x, zero) b = Transpose <perm = [0, 2, 1]> (a) y = MaxPool <kernel_shape = [2]> (b)",
        "looks at neighbouring rows",
    ),
    "lstm over rows": (
        """w = Constant <value = float[1,4,4] {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}> ()
           r = Constant <value = float[1,4,1] {0,0,0,0}> () a = Unsqueeze (x, one)
           y = LSTM <hidden_size = 1> (a, w, r)""",
        "node 3 LSTM goes through the rows one after another",
    ),
    "own function": ("y = own.Centred (x)", "node 0 own.Centred, in it node 1 ReduceMean combines all rows"),
    # Those that no made-up row of moderate values gives away.
    "only large values": (
        """m = ReduceMax (x, zero) big = Constant <value = float {1000000.0}> () c = Greater (m, big)
           y = Where (c, m, x)""",
        "combines all rows",
    ),
    "a branch for large values": (
        """big = Constant <value = float {1000.0}> () m = ReduceMax <keepdims = 0> (x) c = Greater (m, big)
           y = If (c) <then_branch = t () => (float[M,K] a) { a = Neg (x) },
                       else_branch = e () => (float[M,K] b) { b = Identity (x) }>""",
        "combines all rows",
    ),
    "only batches of 5": (
        """n = Shape <start = 0, end = 1> (x) five = Constant <value = int64[1] {5}> () c = Equal (n, five)
           m = Neg (x) y = Where (c, m, x)""",
        "takes the number of rows as a value",
    ),
    "until all are done": (
        """going = Constant <value = bool {1}> ()
           y = Loop (, going, x) <body = b (int64 i, bool c, float[N,4] s) => (bool d, float[N,4] t) {
             half = Constant <value = float {0.5}> () t = Mul (s, half)
             m = ReduceMax <keepdims = 0> (t) d = Greater (m, half) }>""",
        "node 1 Loop ends for all rows at once, by values",
    ),
}


@pytest.mark.parametrize("name", ROWS_APART)
def test_rows_stay_apart(name: str) -> None:
    text = f"g (float[N,4] x) => (float[M,K] y) {CONSTANTS} {{ {ROWS_APART[name]} }}"
    found = facts(text, functions=FUNCTIONS)
    assert (found.verdict, found.reason, found.output_axes) == (ROW_WISE, "", {"y": 0})


@pytest.mark.parametrize("name", ROWS_MIX)
def test_rows_mix_and_the_node_is_named(name: str) -> None:
    nodes, reason = ROWS_MIX[name]
    found = facts(f"g (float[N,4] x) => (float[M,K] y) {CONSTANTS} {{ {nodes} }}", functions=FUNCTIONS)
    assert found.verdict is MIXES
    assert reason in found.reason


def test_rows_on_another_axis() -> None:
    nodes = "y = Softmax <axis = 0> (x)"
    assert of_nodes(nodes, axes={"x": 1}).output_axes == {"y": 1}
    assert of_nodes("y = Softmax <axis = 1> (x)", axes={"x": 1}).verdict is MIXES


def test_time_first() -> None:
    """As recurrent networks and attention are exported: [time, rows, features] to [time * rows, features]."""
    text = """g (float[T,N,4] x) => (float[M,K,L] y) <int64[2] flat = {-1, 4}, float[4,1] w = {1,2,3,4}> {
        s = Shape <start = 0, end = 2> (x) e = Constant <value = int64[1] {1}> () t = Concat <axis = 0> (s, e)
        a = Reshape (x, flat) b = MatMul (a, w) c = Reshape (b, t) y = Relu (c) }"""
    assert facts(text, {"x": 1}).output_axes == {"y": 1}


def test_old_softmax_is_taken_over_all_further_axes() -> None:
    text = "g (float[N,3,4] x) => (float[N,3,4] y) { y = Softmax <axis = 0> (x) }"
    assert facts(text, opset=11).verdict is MIXES
    assert facts(text.replace("axis = 0", "axis = 1"), opset=11).verdict is ROW_WISE
    # Rows on the last axis: from opset 13 on only the named axis counts.
    inner = text.replace("axis = 0", "axis = 1")
    assert facts(inner, {"x": 2}, opset=11).verdict is MIXES
    assert facts(inner, {"x": 2}, opset=13).verdict is ROW_WISE


def test_a_scalar_input_is_the_same_for_all() -> None:
    inputs, axes = "float[N,4] x, float factor", {"x": 0, "factor": None}
    assert of_nodes("y = Mul (x, factor)", inputs, axes).verdict is ROW_WISE
    asked = of_nodes(
        """z = Constant <value = float {0.0}> () c = Greater (factor, z)
           y = If (c) <then_branch = t () => (float[M,K] a) { a = Neg (x) },
                       else_branch = e () => (float[M,K] b) { b = Relu (x) }>""",
        inputs,
        axes,
    )
    assert (asked.verdict, asked.varying_node) == (ROW_WISE, "node 2 If")


def test_several_inputs_with_rows_on_other_axes() -> None:
    nodes = "h = Transpose <perm = [1, 0]> (state) y = Add (x, h)"
    inputs = "float[N,4] x, float[4,N] state"
    assert of_nodes(nodes, inputs, {"x": 0, "state": 1}).verdict is ROW_WISE
    assert of_nodes("y = Add (x, state)", inputs, {"x": 0, "state": 1}).verdict is MIXES


LOOP = """
n = Constant <value = int64 {3}> () going = Constant <value = bool {1}> ()
y, all = Loop (n, going, x) <body = b (int64 i, bool c, float[N,4] s) => (bool d, float[N,4] t, float[N,4] u)
{
    d = Identity (c) t = Add (s, x) u = Softmax <axis = AXIS> (t) }>"""


def test_a_loop_of_a_fixed_number_of_rounds() -> None:
    text = f"g (float[N,4] x) => (float[N,4] y, float[M,K,L] all) {{ {LOOP} }}"
    found = facts(text.replace("AXIS", "1"))
    assert (found.verdict, found.output_axes, found.varying_node) == (ROW_WISE, {"y": 0, "all": 1}, "")
    found = facts(text.replace("AXIS", "0"))
    assert (found.verdict, found.output_axes) == (MIXES, {"y": 0})
    assert found.reason == "node 2 Loop, in it node 2 Softmax is taken over all rows"


def test_a_scan_over_time_and_over_rows() -> None:
    body = "body = b (float[4] s, float[4] e) => (float[4] t, float[4] u) { t = Add (s, e) u = Neg (t) }"
    scan = f"last, y = Scan <num_scan_inputs = 1, {body}> (zeros, x)"
    text = f"g (float[N,4] x) => (float[N,4] y) <float[4] zeros = {{0,0,0,0}}> {{ {scan} }}"
    assert "node 0 Scan goes through the rows" in facts(text).reason
    state = "first = Transpose <perm = [1, 0, 2]> (x) start = ReduceSum <keepdims = 0> (x, one)"
    over_time = f"{state} last, y = Scan <num_scan_inputs = 1, {body.replace('[4]', '[N,4]')}> (start, first)"
    text = f"g (float[N,5,4] x) => (float[M,K,L] y) <int64[1] one = {{1}}> {{ {over_time} }}"
    found = facts(text)
    assert (found.verdict, found.output_axes) == (ROW_WISE, {"y": 1})


def test_branches_of_other_ranks_are_followed_one_by_one() -> None:
    """As exporters write `squeeze`: the condition depends on lengths, which are the same for all rows."""
    nodes = """
        s = Shape <start = 2, end = 3> (x) one = Constant <value = int64[1] {1}> () c = Equal (s, one)
        two = Constant <value = int64[1] {2}> ()
        a = If (c) <then_branch = t () => (float[M,K] p) { p = Squeeze (x, two) },
                    else_branch = e () => (float[M,K,L] q) { q = Relu (x) }>
        y = Sigmoid (a)"""
    assert of_nodes(nodes, "float[N,4,T] x").verdict is ROW_WISE
    mixing = nodes.replace("q = Relu (x)", "q = Softmax <axis = 0> (x)")
    assert of_nodes(mixing, "float[N,4,T] x").verdict is MIXES


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("y = com.example.Foo (x)", "node 0 com.example.Foo is not known"),
        ("y = RandomNormalLike (x)", "node 0 RandomNormalLike draws random numbers"),
        ("y = Squeeze (x)", "drops the axis of the rows where there is one row only"),
        (
            "s = Constant <value = int64[2] {1, 4}> () y = Reshape (x, s)",
            "does not grow with the number of rows",
        ),
        (
            "s = Constant <value = int64[1] {-1}> () y = Reshape (x, s)",
            "output y has 4 entries a row on axis 0",
        ),
        (
            "c = Constant <value = float[1,4] {1,2,3,4}> () y = Concat <axis = 0> (x, c)",
            "values of a fixed number",
        ),
        ("y = Constant <value = float[1,4] {1,2,3,4}> ()", "output y is the same whatever the rows"),
    ],
)
def test_what_stays_unknown(nodes: str, reason: str) -> None:
    found = of_nodes(nodes)
    assert found.verdict is UNKNOWN
    assert reason in found.reason


def test_random_nodes_are_named() -> None:
    assert of_nodes("r = RandomNormalLike (x) y = Add (x, r)").random_node == "node 0 RandomNormalLike"


def test_the_entries_of_a_table_bound_an_input() -> None:
    text = """g (int64[N,T] ids, int64[N,T] kinds) => (float[M,K,L] y) <
        float[5,2] words = {0,1,2,3,4,5,6,7,8,9}, float[3,2] table = {0,1,2,3,4,5}> {
        a = Cast <to = 6> (ids) b = Gather (words, a) c = Gather (table, kinds) d = Gather (table, ids)
        e = Add (b, c) y = Add (e, d) }"""
    assert facts(text).index_bounds == {"ids": 3, "kinds": 3}


def test_a_mix_that_no_output_shows_counts_for_nothing() -> None:
    assert of_nodes("m = ReduceMean (x) y = Relu (x)").verdict is ROW_WISE


def test_inputs_that_cannot_be_followed() -> None:
    assert "declares no shape" in facts("g (float[] x) => (float[] y) { y = Relu (x) }", {"x": 0}).reason
    assert "has no axis 3" in of_nodes("y = Relu (x)", axes={"x": 3}).reason
    assert "no tensor x" in of_nodes("y = Relu (x)", axes={}).reason
