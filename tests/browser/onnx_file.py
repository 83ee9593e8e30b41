"""Small ONNX models as files that a visitor chooses."""

import base64

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = list[int | str]


def model_file(
    name: str, nodes: list[onnx.NodeProto], inputs: dict[str, Shape], result: Shape, **constants: np.ndarray
) -> dict[str, str]:
    """A model of float32 with one output, `result`, as picture_scenarios.mjs takes it."""
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, shape) for each, shape in inputs.items()],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, result)],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content = base64.b64encode(model.SerializeToString()).decode()
    return {"name": f"{name}.onnx", "mimeType": "application/octet-stream", "base64": content}
