"""Ensembles of trees as nodes of skl2onnx: their sums, and what the estimator makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from penstock.importing.labels import as_labels
from penstock.importing.trees import attributes
from penstock.importing.trees_sklearn import Scored

ReadTrees = Callable[[Any], Scored]


def converter(read: ReadTrees) -> Callable[[Any, Any, Any], None]:
    """A converter for skl2onnx of estimators whose trees `read` finds."""

    def convert(scope: Any, operator: Any, container: Any) -> None:
        model = operator.raw_operator
        graph = Graph(scope, container)
        outputs = [each.full_name for each in operator.outputs]
        scores = graph.scores(operator.inputs[0].full_name, read(model))
        if hasattr(model, "classes_") and len(outputs) > 1:
            graph.classes(scores, as_labels(model.classes_), outputs)
        else:
            graph.node("Identity", [scores], output=outputs[0])

    return convert


class Graph:
    """Adds nodes to a container of skl2onnx.

    Args:
        scope: gives unused names.
        container: takes the nodes.
    """

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope, self._container = scope, container

    def node(
        self, kind: str, inputs: list[str], output: str = "", domain: str = "", version: int = 13, **more: Any
    ) -> str:
        """Adds a node with one output, whose name it returns."""
        name = output or self._scope.get_unique_variable_name(kind.lower())
        more["name"] = self._scope.get_unique_operator_name(kind)
        self._container.add_node(kind, inputs, [name], op_domain=domain, op_version=version, **more)
        return name

    def constant(self, values: Any) -> str:
        """Adds a constant, FP32, INT64 or of texts."""
        from onnx import TensorProto

        array = np.asarray(values)
        flat: list[Any]
        if array.dtype.kind in "OUST":
            kind, flat = TensorProto.STRING, [str(each).encode() for each in array.ravel()]
        elif array.dtype.kind in "iub":
            kind, flat = TensorProto.INT64, [int(each) for each in array.ravel()]
        else:
            kind, flat = TensorProto.FLOAT, [float(each) for each in array.ravel()]
        name: str = self._scope.get_unique_variable_name("constant")
        self._container.add_initializer(name, kind, list(array.shape), flat)
        return name

    def doubles(self, values: Any) -> str:
        """Adds a constant, FP64."""
        from onnx import TensorProto

        array = np.asarray(values, np.float64)
        name: str = self._scope.get_unique_variable_name("constant")
        flat = array.ravel().tolist()
        self._container.add_initializer(name, TensorProto.DOUBLE, list(array.shape), flat)
        return name

    def scores(self, features: str, scored: Scored) -> str:
        """The outputs of an ensemble, FP32 [N, targets], for features [N, columns]."""
        from onnx import TensorProto

        if scored.whole:
            features = self._whole(features, scored.whole)
        doubles = self.node("Cast", [features], to=TensorProto.DOUBLE)
        sums = self.node(
            "TreeEnsembleRegressor", [doubles], domain="ai.onnx.ml", version=3, **attributes(scored.ensemble)
        )
        if scored.linear:
            sums = self._weighted(sums, features)
        if scored.scale != 1.0:
            sums = self.node("Mul", [sums, self.constant(np.float32(scored.scale))])
        return self._linked(sums, scored.link, scored.ensemble.targets)

    def _whole(self, features: str, chosen: Sequence[bool]) -> str:
        """The features, some of them without their decimals."""
        from onnx import TensorProto

        floats = self.node("Cast", [features], to=TensorProto.FLOAT)
        size = self.node("Floor", [self.node("Abs", [floats])])
        cut = self.node("Mul", [self.node("Sign", [floats]), size], version=14)
        is_cut = self.node("Cast", [self.constant([[int(each) for each in chosen]])], to=TensorProto.BOOL)
        return self.node("Where", [is_cut, cut, floats], version=16)

    def _weighted(self, weights: str, features: str) -> str:
        """The sum of the features by weights, of which the last is a constant."""
        from onnx import TensorProto

        floats = self.node("Cast", [features], to=TensorProto.FLOAT)
        # Leaves that take a missing value have no weight for it: 0, not NaN.
        zero = self.constant(np.float32(0))
        floats = self.node("Where", [self.node("IsNaN", [floats]), zero, floats])
        ones = self.node(
            "Mul", [self.node("Slice", [weights, *self._last(weights)]), self.constant(np.float32(0))]
        )
        ones = self.node("Add", [ones, self.constant(np.float32(1))])
        whole = self.node("Concat", [floats, ones], axis=1)
        product = self.node("Mul", [weights, whole])
        return self.node("ReduceSum", [product, self.constant([1])], keepdims=1)

    def _last(self, _: str) -> list[str]:
        return [self.constant([-1]), self.constant([2**31]), self.constant([1])]

    def _linked(self, sums: str, link: str, targets: int) -> str:
        if link in ("identity", "proportions"):
            return sums
        if link == "softmax":
            return self.node("Softmax", [sums], axis=1)
        if link == "signed_square":
            return self.node("Mul", [sums, self.node("Abs", [sums])])
        if link in ("sigmoid", "sigmoids"):
            # ONNX Runtime's Sigmoid is 0 from -18 on, where rare events still have a probability.
            exponential = self.node("Exp", [self.node("Neg", [sums])])
            return self.node("Reciprocal", [self.node("Add", [exponential, self.constant(np.float32(1))])])
        return self.node(
            {"exp": "Exp", "softplus": "Softplus"}[link], [sums], version=13 if link == "exp" else 1
        )

    def classes(self, scores: str, classes: Any, outputs: list[str]) -> None:
        """Adds the label and the probabilities, from the probability of the second class or of all."""
        probabilities = scores
        if len(classes) == 2:
            probabilities = self._both(scores)
        self.node("Identity", [probabilities], output=outputs[1])
        place = self.node("ArgMax", [probabilities], axis=1, keepdims=0)
        self.node("Gather", [self.constant(classes), place], output=outputs[0], axis=0)

    def _both(self, scores: str) -> str:
        """[N, 2] from [N, 1] or [N, 2]: the last column is the second class."""
        second = self.node("Slice", [scores, self.constant([-1]), self.constant([2**31]), self.constant([1])])
        first = self.node("Sub", [self.constant(np.float32(1)), second])
        return self.node("Concat", [first, second], axis=1)
