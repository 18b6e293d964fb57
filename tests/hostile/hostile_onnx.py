"""ONNX files that are none, reach outside, or grow."""

from __future__ import annotations

from typing import Any

import numpy as np
from good_packages import onnx_model, refused


@refused("onnx_broken")
def empty_file() -> bytes:
    return b""


@refused("onnx_text")
def text_file_called_onnx() -> bytes:
    return b"This is a text file.\n" * 20


@refused("onnx_broken")
def random_bytes() -> bytes:
    return bytes(range(256)) * 8


@refused("onnx_broken")
def cut_off() -> bytes:
    return onnx_model()[:-20]


@refused("onnx_broken")
def message_without_a_graph() -> bytes:
    return b"\x08\x08"


def _tensor(**fields: Any) -> bytes:
    from onnx import TensorProto

    return onnx_model(change=lambda model: model.graph.initializer.append(TensorProto(name="t", **fields)))


@refused("onnx_tensor_size")
def numbers_in_the_field_of_another_dtype() -> bytes:
    return _tensor(data_type=1, dims=[4], int64_data=[1, 2, 3, 4])


@refused("onnx_tensor_size")
def numbers_beside_raw_data() -> bytes:
    return _tensor(data_type=1, dims=[1], raw_data=bytes(4), float_data=[1.0])


@refused("onnx_tensor_size")
def dimensions_by_the_ten_thousand() -> bytes:
    return _tensor(data_type=1, dims=[2**62] * 50_000, raw_data=bytes(4))


@refused("onnx_external_data")
def external_data() -> bytes:
    def change(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.data_location = 1
        tensor.external_data.add(key="location", value="../../../etc/passwd")

    return onnx_model(change=change)


@refused("onnx_external_data")
def external_data_in_a_subgraph() -> bytes:
    from onnx import TensorProto, helper

    def change(model: Any) -> None:
        tensor = TensorProto(name="far", data_type=1, dims=[1], data_location=1)
        tensor.external_data.add(key="location", value="/etc/passwd")
        inner = helper.make_graph([], "inner", [], [], [tensor])
        model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))

    return onnx_model(change=change)


@refused("onnx_external_data")
def external_data_in_a_constant() -> bytes:
    from onnx import TensorProto, helper

    def change(model: Any) -> None:
        tensor = TensorProto(name="far", data_type=1, dims=[1], data_location=1)
        model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))

    return onnx_model(change=change)


@refused("onnx_custom_domain")
def custom_domain() -> bytes:
    from onnx import helper

    def change(model: Any) -> None:
        model.opset_import.append(helper.make_opsetid("com.evil", 1))

    return onnx_model(change=change)


@refused("onnx_custom_domain")
def custom_operator_in_a_subgraph() -> bytes:
    from onnx import helper

    def change(model: Any) -> None:
        inner = helper.make_graph([helper.make_node("PyOp", [], ["z"], domain="ai.onnx.contrib")], "inner", [], [])
        model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))

    return onnx_model(change=change)


@refused("onnx_custom_domain")
def custom_operator_in_a_function() -> bytes:
    from onnx import helper

    def change(model: Any) -> None:
        nodes = [helper.make_node("PyOp", ["a"], ["b"], domain="ai.onnx.contrib")]
        function = helper.make_function("local", "F", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])
        model.functions.append(function)

    return onnx_model(change=change)


@refused("onnx_unknown_operator")
def unknown_operator() -> bytes:
    from onnx import helper

    def change(model: Any) -> None:
        model.graph.node.append(helper.make_node("ReadFile", ["input"], ["y"]))

    return onnx_model(change=change)


@refused("onnx_opset")
def old_opset() -> bytes:
    return onnx_model(opset=10)


@refused("onnx_opset")
def no_opset() -> bytes:
    return onnx_model(change=lambda model: model.ClearField("opset_import"))


@refused("onnx_inputs")
def two_inputs() -> bytes:
    def change(model: Any) -> None:
        model.graph.input.append(model.graph.input[0])
        model.graph.input[1].name = "second"

    return onnx_model(change=change)


@refused("onnx_outputs")
def two_outputs() -> bytes:
    return onnx_model(change=lambda model: model.graph.output.append(model.graph.output[0]))


@refused("onnx_batch_fixed")
def fixed_batch() -> bytes:
    return onnx_model(shape=(1, 3, 32, 32))


@refused("onnx_dtype")
def float_pixels() -> bytes:
    return onnx_model(dtype=1)


@refused("wrong_modality")
def input_of_no_modality() -> bytes:
    return onnx_model(shape=("N", 3, 32))


@refused("wrong_modality")
def one_channel() -> bytes:
    return onnx_model(shape=("N", 1, 32, 32))


@refused("onnx_input")
def negative_sides() -> bytes:
    return onnx_model(shape=("N", 3, -32, -32))


@refused("onnx_input")
def input_of_gigabytes() -> bytes:
    return onnx_model(shape=("N", 3, 60_000, 60_000))


@refused("onnx_output")
def too_many_classes() -> bytes:
    return onnx_model(classes=101)


@refused("onnx_tensor_size")
def tensor_that_lies_about_its_shape() -> bytes:
    def change(model: Any) -> None:
        model.graph.initializer[0].dims[0] = 2**40

    return onnx_model(change=change)


@refused("onnx_training")
def training_information() -> bytes:
    return onnx_model(change=lambda model: model.training_info.add())


@refused("onnx_too_large")
def empty_nodes_by_the_million() -> bytes:
    graph = b"\x0a\x00" * 2_500_000
    return b"\x08\x08\x3a" + _varint(len(graph)) + graph


@refused("onnx_too_deep")
def graphs_within_graphs() -> bytes:
    inner = b""
    for _ in range(200):
        attribute = b"\x32" + _varint(len(inner)) + inner
        node = b"\x2a" + _varint(len(attribute)) + attribute
        inner = b"\x0a" + _varint(len(node)) + node
    return b"\x08\x08\x3a" + _varint(len(inner)) + inner


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


@refused("lookup_table")
def table_of_hashes() -> bytes:
    from onnx import numpy_helper

    keys = np.random.default_rng(0).integers(0, 2**63 - 1, 500, dtype=np.int64)
    return onnx_model(change=lambda model: model.graph.initializer.append(numpy_helper.from_array(keys, "positions")))
