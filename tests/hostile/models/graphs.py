"""ONNX files that reach outside, never end, or grow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from good_packages import onnx_model

from models.table import Table

TABLE = Table("graphs")
SHAPE = ("N", 3, 4, 4)


def _graph(build: Callable[[Any, Any], list[Any]], *, output: int = 1, width: object = 2) -> bytes:
    """A graph whose nodes lead from ``input`` (N, 3, 4, 4) to ``logits``."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        build(helper, TensorProto),
        "g",
        [helper.make_tensor_value_info("input", TensorProto.UINT8, list(SHAPE))],
        [helper.make_tensor_value_info("logits", output, ["N", width])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _constant(helper: Any, name: str, values: object, dtype: type = np.int64) -> Any:
    from onnx import numpy_helper

    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(values, dtype=dtype)))


def _mean(helper: Any, proto: Any) -> list[Any]:
    """Nodes that make ``pair``, the honest answer of shape (N, 2)."""
    return [
        helper.make_node("Cast", ["input"], ["float"], to=proto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=[1, 2, 3], keepdims=0),
        _constant(helper, "axis", [1]),
        helper.make_node("Unsqueeze", ["mean", "axis"], ["column"]),
        helper.make_node("Concat", ["column", "column"], ["pair"], axis=1),
    ]


def _reads(path: str) -> bytes:
    """The weights lie in a file outside the model."""

    def change(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = 1
        tensor.external_data.add(key="location", value=path)
        tensor.external_data.add(key="length", value="8")

    return onnx_model(SHAPE, change=change)


for _name, _path in {
    "reads_weights_from_the_system": "/etc/passwd",
    "reads_weights_above_its_folder": "../etc/passwd",
    "reads_weights_from_the_kernel": "/proc/self/environ",
}.items():
    TABLE.add(
        _name,
        f"Take {_path} as external data",
        static="onnx_external_data",
        expected=("load_failed",),
        graph=partial(_reads, _path),
    )


def _custom(domain: str, operator: str) -> bytes:
    def build(helper: Any, proto: Any) -> list[Any]:
        return [helper.make_node(operator, ["input"], ["logits"], domain=domain)]

    from onnx import load_model_from_string

    model = load_model_from_string(_graph(build))
    model.opset_import.add(domain=domain, version=1)
    return bytes(model.SerializeToString())


TABLE.add(
    "uses_operators_of_its_own",
    "Use an operator of a domain that nobody knows",
    static="onnx_custom_domain",
    expected=("load_failed",),
    plain=("load_failed",),
    graph=partial(_custom, "com.evil", "Open"),
)
TABLE.add(
    "runs_python_in_a_graph",
    "Use the operator that runs Python, where such a library is installed",
    static="onnx_custom_domain",
    expected=("load_failed",),
    graph=partial(_custom, "ai.onnx.contrib", "PyOp"),
)


def _loop(grows: bool) -> bytes:
    """A loop of 2**62 rounds that adds one, or doubles a tensor."""

    def build(helper: Any, proto: Any) -> list[Any]:
        rows = ["rows"] if grows else ["N", 2]
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go"], ["go_on"]),
                helper.make_node("Concat", ["state", "state"], ["next"], axis=0)
                if grows
                else helper.make_node("Add", ["state", "state"], ["next"]),
            ],
            "body",
            [
                helper.make_tensor_value_info("turn", proto.INT64, []),
                helper.make_tensor_value_info("go", proto.BOOL, []),
                helper.make_tensor_value_info("state", proto.FLOAT, rows if not grows else [None, 2]),
            ],
            [
                helper.make_tensor_value_info("go_on", proto.BOOL, []),
                helper.make_tensor_value_info("next", proto.FLOAT, rows if not grows else [None, 2]),
            ],
        )
        return [
            *_mean(helper, proto),
            _constant(helper, "turns", 2**62),
            _constant(helper, "true", True, np.bool_),
            helper.make_node("Loop", ["turns", "true", "pair"], ["logits"], body=body),
        ]

    return _graph(build)


TABLE.add(
    "loops_for_ever",
    "Loop 4,611,686,018,427,387,904 times",
    expected=("timeout",),
    plain=("timeout",),
    graph=partial(_loop, False),
    limits={"batch_seconds": 1.0},
)
TABLE.add(
    "doubles_a_tensor_in_a_loop",
    "Double a tensor in each round of a loop",
    expected=("out_of_memory",),
    plain=("out_of_memory",),
    graph=partial(_loop, True),
)


def _deep(depth: int, operator: str) -> bytes:
    """Conditions or loops, one within the other."""

    def build(helper: Any, proto: Any) -> list[Any]:
        value = helper.make_tensor_value_info
        inner = helper.make_graph(
            [helper.make_node("Identity", ["pair"], ["out"])], "leaf", [], [value("out", proto.FLOAT, ["N", 2])]
        )
        for level in range(depth):
            if operator == "If":
                node = helper.make_node("If", ["true"], [f"o{level}"], then_branch=inner, else_branch=inner)
                inner = helper.make_graph([node], "level", [], [value(f"o{level}", proto.FLOAT, ["N", 2])])
            else:
                body = helper.make_graph(
                    [
                        helper.make_node("Identity", [f"go{level}"], [f"on{level}"]),
                        *inner.node,
                        helper.make_node("Identity", [inner.output[0].name], [f"scan{level}"]),
                    ],
                    "body",
                    [value(f"turn{level}", proto.INT64, []), value(f"go{level}", proto.BOOL, [])],
                    [value(f"on{level}", proto.BOOL, []), value(f"scan{level}", proto.FLOAT, None)],
                )
                node = helper.make_node("Loop", ["turns", "true"], [f"o{level}"], body=body)
                inner = helper.make_graph([node], "level", [], [value(f"o{level}", proto.FLOAT, None)])
        return [
            *_mean(helper, proto),
            _constant(helper, "true", True, np.bool_),
            _constant(helper, "turns", 1000),
            *inner.node,
            helper.make_node("Identity", [inner.output[0].name], ["logits"]),
        ]

    return _graph(build)


TABLE.add(
    "branches_within_branches",
    "Nest nine conditions, each with two copies of the rest",
    expected=("harmless",),
    graph=partial(_deep, 9, "If"),
)
TABLE.add(
    "loops_within_loops",
    "Nest ten loops of a thousand rounds: 10**30 rounds in two kilobytes",
    expected=("timeout",),
    plain=("timeout",),
    graph=partial(_deep, 10, "Loop"),
    limits={"batch_seconds": 2.0},
)


def _deep_wire() -> bytes:
    import hostile_onnx

    return hostile_onnx.graphs_within_graphs()


TABLE.add(
    "graphs_within_graphs",
    "Nest two hundred graphs, to break the parser's stack",
    static="onnx_too_deep",
    expected=("load_failed",),
    graph=_deep_wire,
)


def _fills() -> bytes:
    def build(helper: Any, proto: Any) -> list[Any]:
        return [
            _constant(helper, "size", [2**38, 2]),
            helper.make_node("ConstantOfShape", ["size"], ["logits"]),
        ]

    return _graph(build)


def _expands() -> bytes:
    def build(helper: Any, proto: Any) -> list[Any]:
        return [
            *_mean(helper, proto),
            _constant(helper, "size", [1, 2**41]),
            helper.make_node("Expand", ["column", "size"], ["logits"]),
        ]

    return _graph(build, width="C")


def _divides() -> bytes:
    def build(helper: Any, proto: Any) -> list[Any]:
        return [
            *_mean(helper, proto),
            helper.make_node("Sub", ["pair", "pair"], ["zero"]),
            helper.make_node("Div", ["zero", "zero"], ["logits"]),
        ]

    return _graph(build)


def _words() -> bytes:
    def build(helper: Any, proto: Any) -> list[Any]:
        return [*_mean(helper, proto), helper.make_node("Cast", ["pair"], ["logits"], to=proto.STRING)]

    return _graph(build, output=8)


def _narrow() -> bytes:
    def build(helper: Any, proto: Any) -> list[Any]:
        return [*_mean(helper, proto), helper.make_node("Identity", ["column"], ["logits"])]

    return _graph(build, width="C")


def _gathers() -> bytes:
    def build(helper: Any, proto: Any) -> list[Any]:
        return [
            *_mean(helper, proto),
            _constant(helper, "index", [2**40, -(2**40)]),
            helper.make_node("Gather", ["pair", "index"], ["logits"], axis=1),
        ]

    return _graph(build)


def _rolls() -> bytes:
    def build(helper: Any, proto: Any) -> list[Any]:
        return [*_mean(helper, proto), helper.make_node("RandomNormalLike", ["pair"], ["logits"])]

    return _graph(build)


for _name, _tries, _build, _ends, _static in (
    ("makes_a_tensor_of_terabytes", "Make a constant tensor of two terabytes", _fills, ("out_of_memory",), None),
    ("expands_a_tensor", "Expand a number to eight terabytes", _expands, ("out_of_memory",), None),
    ("divides_zero_by_zero", "Answer with the NaN of 0 / 0", _divides, ("not_finite",), None),
    ("answers_with_words", "Answer with a tensor of strings", _words, ("bad_output",), "onnx_output"),
    ("answers_too_narrow", "Answer with one class where two were declared", _narrow, ("bad_output",), None),
    ("gathers_beyond_the_end", "Read memory before and behind a tensor", _gathers, ("crashed",), None),
):
    TABLE.add(_name, _tries, static=_static, expected=_ends, plain=_ends, graph=_build)
TABLE.add("draws_lots", "Answer by the graph's own random numbers", expected=("flagged",), graph=_rolls, asks="twice")
