"""Native peers that run an ONNX file on the processor: onnxruntime and OpenVINO, each where it is installed.

`pip install mlc-controlnet[peers]` installs both.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

ONNXRUNTIME, OPENVINO = "onnxruntime", "OpenVINO"


def installed_runtimes() -> tuple[str, ...]:
    """Return the names of the runtimes that are installed."""
    return tuple(name for name in _RUNTIMES if find_spec(name.lower()) is not None)


def runtime_versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of installed runtimes."""
    return {name: version(name.lower()) for name in names}


def load_runtime(name: str, file: Path, inputs: Sequence[np.ndarray], threads: int) -> Callable[[], list[np.ndarray]]:
    """Compile `file` and return its call on `inputs`, whose outputs the next call overwrites.

    name: one of `installed_runtimes()`. inputs: in the order of the file's inputs, float32 and contiguous; both
    runtimes read them where they are. Arithmetic is in float32: left alone, OpenVINO takes bfloat16 on processors
    that have it.
    """
    return _RUNTIMES[name](file, inputs, threads)


def _load_onnxruntime(file: Path, inputs: Sequence[np.ndarray], threads: int) -> Callable[[], list[np.ndarray]]:
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for place, value in zip(session.get_inputs(), inputs, strict=True):
        binding.bind_cpu_input(place.name, value)
    for place in session.get_outputs():
        binding.bind_output(place.name, "cpu")

    def call() -> list[np.ndarray]:
        session.run_with_iobinding(binding)
        return [value.numpy() for value in binding.get_outputs()]

    return call


def _load_openvino(file: Path, inputs: Sequence[np.ndarray], threads: int) -> Callable[[], list[np.ndarray]]:
    openvino = import_module("openvino")
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino.Core().compile_model(str(file), "CPU", settings)
    request = model.create_infer_request()
    for place, value in enumerate(inputs):
        request.set_input_tensor(place, openvino.Tensor(value, shared_memory=True))

    def call() -> list[np.ndarray]:
        request.infer()
        return [request.get_output_tensor(place).data for place in range(len(model.outputs))]

    return call


_RUNTIMES: Mapping[str, Callable[[Path, Sequence[np.ndarray], int], Any]] = {
    ONNXRUNTIME: _load_onnxruntime,
    OPENVINO: _load_openvino,
}
