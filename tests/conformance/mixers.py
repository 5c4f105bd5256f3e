"""Models made by hand whose rows depend on each other, though their graphs declare a shared open first axis.

`MIXERS` are to be found out at load and served unbatched. `UNSEEN` are those that no made-up row of moderate
value can give away; they are served all the same, so that it is known what the server makes of each.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto

from tests.conformance.graphs import (
    ALL,
    END,
    FIRST,
    ONE,
    ZERO,
    across,
    along,
    as_sequence,
    chosen,
    counted,
    cumulated,
    floats,
    ints,
    less_row,
    model,
    moved,
    node,
    numbered,
    plus_mean,
    reduced,
)

MIXERS: Mapping[str, onnx.ModelProto] = {
    "softmax": along("Softmax"),
    "log_softmax": along("LogSoftmax"),
    "hardmax": along("Hardmax"),
    "length_one": along("LpNormalization", p=2),
    "sum_one": along("LpNormalization", p=1),
    "less_mean": reduced("ReduceMean", "Sub"),
    "less_max": reduced("ReduceMax", "Sub"),
    "less_min": reduced("ReduceMin", "Sub"),
    "by_sum": reduced("ReduceSum", "Div"),
    "by_length": reduced("ReduceL2", "Div"),
    "no_more_than_mean": reduced("ReduceMean", "Min"),
    "less_mean_of_all": model([node("ReduceMean", "x axes", "m"), node("Sub", "x m")], axes=ALL),
    "plus_a_thousandth_of_the_mean": plus_mean(1e-3),
    "plus_a_hundredth_of_the_mean_fp64": plus_mean(1e-2, TensorProto.DOUBLE),
    "plus_a_millionth_of_the_mean_fp64": plus_mean(1e-6, TensorProto.DOUBLE),
    "plus_mean_fp16": plus_mean(1.0, TensorProto.FLOAT16),
    "cumulated": cumulated(),
    "cumulated_from_the_end": cumulated(reverse=1),
    "cumulated_before": cumulated(exclusive=1),
    "sorted": counted([node("TopK", "x shape", "y places", axis=0)]),
    "order": counted([node("TopK", "x shape", "v i", axis=0), node("Cast", "i", to=TensorProto.FLOAT)]),
    "turned_by_one": moved([(1, END), (0, 1)]),
    "halves_swapped": moved([(-1, END), (0, -1)]),
    "reversed": model(
        [node("Slice", "x a b axis step")], a=ints(-1), b=ints(-END), axis=FIRST, step=ints(-1)
    ),
    "less_first": less_row(0),
    "less_last": less_row(-1),
    "divided_by_count": counted([node("Div", "x rows")]),
    "plus_place": numbered(
        [
            node("Cast", "number", "f", to=TensorProto.FLOAT),
            node("Unsqueeze", "f o", "c"),
            node("Add", "x c"),
        ],
        o=ONE,
    ),
    "plus_a_little_of_its_place": numbered(
        [
            node("Cast", "number", "f", to=TensorProto.FLOAT),
            node("Mul", "f little", "p"),
            node("Unsqueeze", "p o", "c"),
            node("Add", "x c"),
        ],
        little=floats(1e-2),
        o=ONE,
    ),
    "in_training_batch_norm": model(
        [node("BatchNormalization", "x s b m v", "y mean variance", training_mode=1)],
        s=floats(1, 1, 1, 1),
        b=floats(0, 0, 0, 0),
        m=floats(0, 0, 0, 0),
        v=floats(1, 1, 1, 1),
    ),
    "in_training_dropout": model(
        [node("Dropout", "x ratio training", seed=1)], ratio=np.float32(0.5), training=np.bool_(True)
    ),
    "noise": model([node("RandomNormalLike", "x", "n"), node("Add", "x n")]),
    "norm_over_batch": model(
        [node("MeanVarianceNormalization", "x", axes=[0])],
    ),
    "instance_norm_across": across("InstanceNormalization", "ones zeros"),
    "convolved_across": across("Conv", "kernel", pads=[1, 1]),
    "averaged_across": across("AveragePool", kernel_shape=[3], pads=[1, 1]),
    "largest_across": across("MaxPool", kernel_shape=[3], pads=[1, 1]),
    "lstm_across": as_sequence("LSTM", 4, 1),
    "gru_both_ways_across": as_sequence("GRU", 3, 2),
    "rnn_across": as_sequence("RNN", 1, 1),
    "attention_across": model(
        [
            node("Transpose", "x", "t", perm=[1, 0]),
            node("MatMul", "x t", "scores"),
            node("Softmax", "scores", "weights", axis=1),
            node("MatMul", "weights x"),
        ]
    ),
    "rank": model(
        [
            node("Unsqueeze", "x zero", "a"),
            node("Unsqueeze", "x one", "b"),
            node("Less", "a b", "less"),
            node("Cast", "less", "n", to=TensorProto.FLOAT),
            node("ReduceSum", "n one", keepdims=0),
        ],
        zero=ZERO,
        one=ONE,
    ),
    "winner_takes_all": model(
        [
            node("ReduceMax", "x axis", "m"),
            node("Equal", "x m", "e"),
            node("Cast", "e", to=TensorProto.FLOAT),
        ],
        axis=FIRST,
    ),
    "only_the_first_above_zero": model(
        [
            node("Greater", "x zero", "above"),
            node("Cast", "above", "n", to=TensorProto.FLOAT),
            node("CumSum", "n axis", "so_far"),
            node("LessOrEqual", "so_far limit", "kept"),
            node("Cast", "kept", "k", to=TensorProto.FLOAT),
            node("Mul", "x k"),
        ],
        zero=floats(0),
        axis=np.int64(0),
        limit=floats(1),
    ),
    "unique_rows": model([node("Unique", "x", axis=0)]),
    "rows_above_zero": model(
        [
            node("Gather", "x zero", "column", axis=1),
            node("Greater", "column nothing", "above"),
            node("Compress", "x above", axis=0),
        ],
        zero=np.int64(0),
        nothing=floats(0),
    ),
    "quantized_together": model(
        [node("DynamicQuantizeLinear", "x", "q scale zero"), node("DequantizeLinear", "q scale zero")]
    ),
    "sign_of_the_sum": model(
        [node("ReduceSum", "x axes", "s", keepdims=1), node("Sign", "s", "g"), node("Mul", "x g")], axes=ALL
    ),
    "where_above_mean": chosen([node("Greater", "x m", "condition")]),
    "mean_of_another_input": model(
        [node("ReduceMean", "other axis", "m"), node("Add", "x m")], extra="other", axis=FIRST
    ),
    "sum_of_integers": model(
        [node("ReduceSum", "x axis", "s"), node("Add", "x s")], TensorProto.INT64, axis=FIRST
    ),
    "any_of_all": model(
        [
            node("Cast", "x", "n", to=TensorProto.INT32),
            node("ReduceMax", "n axis", "m"),
            node("Max", "n m", "a"),
            node("Cast", "a", to=TensorProto.BOOL),
        ],
        TensorProto.BOOL,
        axis=FIRST,
    ),
}

UNSEEN: Mapping[str, onnx.ModelProto] = {
    "plus_a_millionth_of_the_mean": plus_mean(1e-6),
    "plus_a_thousandth_of_the_mean_fp16": plus_mean(1e-3, TensorProto.FLOAT16),
    "less_mean_above_100": chosen(
        [node("Abs", "x", "size"), node("Greater", "size limit", "condition")], limit=floats(100)
    ),
    "less_mean_beside_a_nan": chosen(
        [
            node("IsNaN", "x", "bad"),
            node("Cast", "bad", "n", to=TensorProto.FLOAT),
            node("ReduceMax", "n axes", "any"),
            node("Cast", "any", "condition", to=TensorProto.BOOL),
        ],
        axes=ALL,
    ),
    "mixed_beside_a_large_column": model(
        [
            node("ReduceMean", "x axis", "m"),
            node("Sub", "x m", "centred"),
            node("Mul", "x large", "big"),
            node("Where", "first big centred"),
        ],
        axis=FIRST,
        large=floats(1e6),
        first=np.array([True, False, False, False]),
    ),
    "mixed_in_batches_of_5": counted(
        [
            node("ReduceMean", "x axis", "m"),
            node("Sub", "x m", "centred"),
            node("Equal", "count five", "condition"),
            node("Where", "condition centred x"),
        ],
        axis=FIRST,
        five=np.int64(5),
    ),
    "zero_where_a_row_came_before": model(
        [
            node("Unsqueeze", "x zero", "a"),
            node("Unsqueeze", "x one", "b"),
            node("Equal", "a b", "equal"),
            node("Cast", "equal", "n", to=TensorProto.FLOAT),
            node("ReduceSum", "n one", "times", keepdims=0),
            node("Div", "x times"),
        ],
        zero=ZERO,
        one=ONE,
    ),
    "mean_cut_off": model(
        [node("ReduceMean", "x axis", "m"), node("Add", "x m", "sum"), node("Clip", "sum low high")],
        axis=FIRST,
        low=np.float32(50),
        high=np.float32(60),
    ),
}
