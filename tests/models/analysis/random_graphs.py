"""Makes graphs of a few random operators, and looks whether rows refute what the analysis says of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from penstock.models.analysis.facts import GraphFacts, Verdict
from penstock.models.analysis.proof import analyse_model

OPSET, IR_VERSION = 17, 8
ROWS = 3
CLOSE = 1e-3
END = np.iinfo(np.int64).max

SHAPES: dict[str, list[int]] = {"x": [4], "y": [4], "z": [2, 4], "w": [2, 2, 4], "ids": []}
"""The inputs, without the axis of the rows, which is the first. `ids` are integers from 0 to 3."""
TARGETS = [
    [-1, 4],
    [0, -1],
    [-1],
    [2, -1],
    [4, -1],
    [0, 0, -1],
    [-1, 1, 4],
    [1, -1, 4],
    [-1, 2, 2],
    [0, 2, 2],
    [2, -1, 4],
    [-1, 8],
    [4, 2, -1],
    [0, -1, 2],
]
EQUATIONS = ["ij,ij->ij", "ij,kj->ik", "ij,ij->i", "ijk,ijk->ij", "ijk,ilk->ijl", "ijk,ij->ik", "ij,jk->ik"]
EQUATIONS += ["...j,...j->...", "ijk,lk->ijl", "ij->ji", "ijk->ikj", "ij,ij->j", "bij,bij->ij"]
UNARY = ["Relu", "Neg", "Abs", "Identity", "Sigmoid"]
BINARY = ["Add", "Mul", "Sub", "Max"]
REDUCTIONS = ["ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"]


class Maker:
    """Makes one graph.

    Args:
        seed: other graphs for other seeds.
        steps: how many operators are chosen.
    """

    def __init__(self, seed: int, steps: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs = list(self.random.permutation([*SHAPES])[: self.random.integers(1, 4)])
        self.made: list[str] = [str(name) for name in self.inputs]
        self.inputs = list(self.made)
        makers = [getattr(self, name) for name in dir(self) if name.startswith("make_")]
        for _ in range(steps):
            self.pick(makers)()

    def pick(self, choices: list[Any]) -> Any:
        return choices[int(self.random.integers(len(choices)))]

    def axis(self) -> int:
        return int(self.random.integers(-2, 4))

    def any(self) -> str:
        """A tensor, mostly one of the last."""
        weights = np.arange(1, len(self.made) + 1, dtype=float) ** 2
        return str(self.random.choice(self.made, p=weights / weights.sum()))

    def constant(self, value: Any, dtype: type = np.int64) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def floats(self) -> str:
        shape = self.pick(
            [[], [1], [4], [3], [2], [1, 4], [2, 4], [3, 4], [4, 4], [2, 1], [1, 1, 4], [3, 1, 1]]
        )
        return self.constant(self.random.normal(size=shape), np.float32)

    def other(self) -> str:
        return self.any() if self.random.random() < 0.6 else self.floats()

    def add(self, operator: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> None:
        names = [f"t{len(self.nodes)}_{place}" for place in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        self.made += names

    def last(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """A step on the way, whose result is no candidate."""
        self.add(operator, inputs, **attributes)
        return self.made.pop()

    def length(self) -> str:
        """A length of a tensor, as a list of one."""
        shape = self.last("Shape", [self.any()])
        return self.last("Gather", [shape, self.constant([int(self.random.integers(0, 2))])], axis=0)

    def make_unary(self) -> None:
        self.add(self.pick(UNARY), [self.any()])

    def make_binary(self) -> None:
        self.add(self.pick(BINARY), [self.any(), self.other()])

    def make_reshape(self) -> None:
        self.add("Reshape", [self.any(), self.constant(self.pick(TARGETS))])

    def make_reshape_by_shape(self) -> None:
        one, rest = self.length(), self.constant(self.pick([[-1], [4], [1, -1], [2, -1], [-1, 4], [2, 2]]))
        parts = [one, rest] if self.random.random() < 0.6 else [rest, one]
        self.add("Reshape", [self.any(), self.last("Concat", parts, axis=0)])

    def make_reshape_by_product(self) -> None:
        product = self.last("Mul", [self.length(), self.length()])
        self.add("Reshape", [self.any(), self.last("Concat", [product, self.constant([-1])], axis=0)])

    def make_transpose(self) -> None:
        rank = int(self.random.integers(2, 5))
        self.add("Transpose", [self.any()], perm=self.random.permutation(rank).tolist())

    def make_softmax(self) -> None:
        self.add("Softmax", [self.any()], axis=self.axis())

    def make_reduction(self) -> None:
        keep = int(self.random.integers(0, 2))
        self.add(self.pick(REDUCTIONS), [self.any()], axes=[self.axis()], keepdims=keep)

    def make_argmax(self) -> None:
        index = self.last("ArgMax", [self.any()], axis=self.axis(), keepdims=int(self.random.integers(0, 2)))
        self.add("Cast", [index], to=TensorProto.FLOAT)

    def make_matmul(self) -> None:
        self.add(
            "MatMul",
            [self.any(), self.other()] if self.random.random() < 0.8 else [self.floats(), self.any()],
        )

    def make_gemm(self) -> None:
        trans = {"transA": int(self.random.integers(0, 2)), "transB": int(self.random.integers(0, 2))}
        inputs = [self.any(), self.other()]
        self.add("Gemm", [*inputs, self.other()] if self.random.random() < 0.5 else inputs, **trans)

    def make_einsum(self) -> None:
        equation = self.pick(EQUATIONS)
        self.add("Einsum", [self.any(), self.other()][: equation.count(",") + 1], equation=equation)

    def make_concat(self) -> None:
        self.add("Concat", [self.any(), self.other()], axis=self.axis())

    def make_split(self) -> None:
        self.add("Split", [self.any()], 2, axis=self.axis())

    def make_slice(self) -> None:
        start, end = self.pick([(0, 1), (1, 2), (0, END), (1, END), (0, -1), (-1, END), (0, 2)])
        self.add("Slice", [self.any(), *(self.constant([each]) for each in (start, end, self.axis()))])

    def make_slice_by_length(self) -> None:
        parts = [self.constant([0]), self.length(), self.constant([self.axis()])]
        self.add("Slice", [self.any(), *parts])

    def make_gather(self) -> None:
        self.add(
            "Gather", [self.any(), self.constant(self.pick([0, [0], [1, 0], [[0], [0]]]))], axis=self.axis()
        )

    def make_lookup(self) -> None:
        table = self.constant(self.random.normal(size=self.pick([[4], [4, 4], [4, 2]])), np.float32)
        if "ids" in self.inputs:
            self.add("Gather", [table, "ids"], axis=self.pick([0, 0, 0, 1]))

    def make_gather_elements(self) -> None:
        index = self.last("ArgMax", [self.any()], axis=self.axis(), keepdims=1)
        self.add("GatherElements", [self.any(), index], axis=self.axis())

    def make_gather_nd(self) -> None:
        index = self.last("ArgMax", [self.any()], axis=self.axis(), keepdims=1)
        self.add("GatherND", [self.any(), index], batch_dims=int(self.random.integers(0, 3)))

    def make_expand(self) -> None:
        self.add(
            "Expand", [self.other(), self.constant(self.pick([[2, 1, 4], [1, 4], [4], [3, 4], [2, 1, 1]]))]
        )

    def make_expand_to_shape(self) -> None:
        self.add("Expand", [self.other(), self.last("Shape", [self.any()])])

    def make_expand_to_length(self) -> None:
        shape = self.last(
            "Concat", [self.length(), self.constant(self.pick([[4], [1], [1, 4], [2, 4]]))], axis=0
        )
        self.add("Expand", [self.other(), shape])

    def make_tile(self) -> None:
        self.add("Tile", [self.any(), self.constant(self.pick([[1, 2], [2, 1], [2, 2, 1], [1, 2, 1], [2]]))])

    def make_tile_by_length(self) -> None:
        shape = self.last("Concat", [self.length(), self.constant(self.pick([[1], [2], [1, 1]]))], axis=0)
        self.add("Tile", [self.other(), shape])

    def make_filled(self) -> None:
        self.add("ConstantOfShape", [self.last("Shape", [self.any()])])

    def make_numbers(self) -> None:
        count = self.last("Squeeze", [self.length()])
        numbers = self.last("Range", [self.constant(0), count, self.constant(1)])
        self.add("Cast", [numbers], to=TensorProto.FLOAT)

    def make_count(self) -> None:
        count = self.last("Cast", [self.length()], to=TensorProto.FLOAT)
        self.add("Div", [self.any(), count])

    def make_unsqueeze(self) -> None:
        self.add("Unsqueeze", [self.any(), self.constant([self.axis()])])

    def make_squeeze(self) -> None:
        self.add("Squeeze", [self.any(), self.constant([self.axis()])])

    def make_flatten(self) -> None:
        self.add("Flatten", [self.any()], axis=self.axis())

    def make_cumsum(self) -> None:
        self.add("CumSum", [self.any(), self.constant(self.axis())])

    def make_top(self) -> None:
        values = self.last(
            "TopK", [self.any(), self.constant([int(self.random.integers(1, 3))])], axis=self.axis()
        )
        self.nodes[-1].output.append(f"{values}_places")
        self.made.append(values)

    def make_where(self) -> None:
        condition = self.last("Greater", [self.any(), self.other()])
        self.add("Where", [condition, self.any(), self.other()])

    def make_norm(self) -> None:
        scale = self.constant(self.random.normal(size=self.pick([[4], [1], [2, 4]])), np.float32)
        self.add("LayerNormalization", [self.any(), scale], axis=self.axis())

    def make_conv(self) -> None:
        channels, kernel = self.pick([1, 2, 4]), self.pick([1, 3])
        weights = self.constant(self.random.normal(size=[2, channels, kernel]), np.float32)
        self.add("Conv", [self.any(), weights], pads=[kernel // 2, kernel // 2])

    def make_pool(self) -> None:
        self.add("MaxPool", [self.any()], kernel_shape=[2], strides=[self.pick([1, 2])])

    def make_pad(self) -> None:
        pads = self.pick([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0]])
        self.add("Pad", [self.any(), self.constant(pads)])

    def make_one_hot(self) -> None:
        if "ids" in self.inputs:
            values = self.constant([0, 1], np.float32)
            self.add("OneHot", ["ids", self.constant(4), values], axis=self.pick([-1, 0, 1]))

    def make_reverse(self) -> None:
        if "ids" in self.inputs:
            lengths = self.last("Clip", ["ids", self.constant(1), self.constant(2)])
            time = self.pick([(0, 1), (1, 0)])
            self.add("ReverseSequence", [self.any(), lengths], batch_axis=time[0], time_axis=time[1])

    def make_scatter(self) -> None:
        index = self.last("ArgMax", [self.any()], axis=self.axis(), keepdims=1)
        updates = self.last(self.pick(REDUCTIONS), [self.any()], axes=[self.axis()], keepdims=1)
        self.add("ScatterElements", [self.any(), index, updates], axis=self.axis())

    def make_lstm(self) -> None:
        size = self.pick([4, 2])
        weights = [self.constant(self.random.normal(size=[1, 8, each]), np.float32) for each in (size, 2)]
        hidden = self.last("LSTM", [self.any(), *weights], hidden_size=2)
        self.made.append(hidden)
        self.add("Squeeze", [hidden, self.constant([1])])

    def _needed(self) -> list[onnx.NodeProto]:
        """The nodes that the last tensor is made of: what others do, such as fail, says nothing of it."""
        wanted, kept = {self.made[-1]}, []
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                wanted |= set(node.input)
                kept.append(node)
        return kept[::-1]

    def model(self) -> onnx.ModelProto:
        """The model, whose output is the last tensor that was made."""
        inputs = [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if name == "ids" else TensorProto.FLOAT, ["N", *SHAPES[name]]
            )
            for name in self.inputs
        ]
        output = helper.make_tensor_value_info(self.made[-1], TensorProto.FLOAT, None)
        graph = helper.make_graph(self._needed(), "random", inputs, [output], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def examined(seed: int, steps: int) -> tuple[GraphFacts, str, onnx.ModelProto]:
    """A random graph: what the analysis says, and in words what refutes it; "-" if it cannot run."""
    maker = Maker(seed, steps)
    model = maker.model()
    facts = analyse_model(model, dict.fromkeys(maker.inputs, 0))
    refuted = _refuted(model, facts, maker.random) if facts.verdict is Verdict.ROW_WISE else ""
    return facts, refuted, model


def _refuted(model: onnx.ModelProto, facts: GraphFacts, random: np.random.Generator) -> str:
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        rows = [_row(model, random) for _ in range(ROWS)]
        alone = [session.run(None, row)[0] for row in rows]
    except Exception:  # most random graphs are wrong
        return "-"
    batch = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    try:
        together = session.run(None, batch)[0]
    except Exception as error:
        return f"rows together fail: {error}"
    axis = next(iter(facts.output_axes.values()))
    shapes = {part.shape for part in alone}
    if len(shapes) > 1 or alone[0].ndim <= axis or alone[0].shape[axis] != 1:
        return f"rows alone have shapes {shapes}"
    wanted = np.concatenate(alone, axis)
    if wanted.shape != together.shape:
        return f"shape {together.shape} in place of {wanted.shape}"
    near = np.allclose(wanted, together, CLOSE, CLOSE, equal_nan=True)
    return "" if near else f"{together.tolist()} in place of {wanted.tolist()}"


def _row(model: onnx.ModelProto, random: np.random.Generator) -> dict[str, np.ndarray]:
    made: dict[str, Callable[[], np.ndarray]] = {}
    for info in model.graph.input:
        shape = [1, *SHAPES[info.name]]
        whole = info.type.tensor_type.elem_type == TensorProto.INT64
        value = random.integers(0, 4, shape) if whole else random.normal(size=shape).astype(np.float32)
        made[info.name] = value
    return made
