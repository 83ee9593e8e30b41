"""Native peers that run an ONNX file on the processor: onnxruntime and OpenVINO, each where it is installed.

`pip install mlc-controlnet[peers]` installs both.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mlc_controlnet.bench.operations.case_files import CaseFiles, read_arrays
from mlc_controlnet.bench.operations.contestant import Side

ONNXRUNTIME, OPENVINO = "onnxruntime", "OpenVINO"


def installed_runtimes() -> tuple[str, ...]:
    """Return the names of the runtimes that are installed."""
    return tuple(name for name in _RUNTIMES if find_spec(name.lower()) is not None)


def runtime_versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of installed runtimes."""
    return {name: version(name.lower()) for name in names}


def load_runtime(name: str, threads: int, files: CaseFiles) -> Side:
    """Compile `files.onnx` for the inputs of the case.

    name: one of `installed_runtimes()`. Both read the inputs where they are. Arithmetic is in float32: left alone,
    OpenVINO takes bfloat16 on processors that have it.
    """
    return _RUNTIMES[name](files.onnx, list(read_arrays(files.inputs)), threads)


def _load_onnxruntime(file: Path, inputs: Sequence[np.ndarray], threads: int) -> Side:
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
    return Side(  # no end to spinning threads: a contestant stands still while another is timed, see OwnProcess
        lambda: session.run_with_iobinding(binding),
        lambda: None,
        lambda _: [value.numpy() for value in binding.get_outputs()],
        held=inputs,
    )


def _load_openvino(file: Path, inputs: Sequence[np.ndarray], threads: int) -> Side:
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
    return Side(
        lambda: request.infer(share_outputs=True),  # else each call copies them
        lambda: None,
        lambda _: [request.get_output_tensor(place).data for place in range(len(model.outputs))],
        held=inputs,
    )


_RUNTIMES: Mapping[str, Callable[[Path, Sequence[np.ndarray], int], Side]] = {
    ONNXRUNTIME: _load_onnxruntime,
    OPENVINO: _load_openvino,
}
