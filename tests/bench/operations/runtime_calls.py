"""Call a runtime of ONNX files, in a process that has neither torch nor TVM."""

import numpy as np
import pytest

from mlc_controlnet.bench.operations import onnx_runtimes
from mlc_controlnet.bench.operations.case_files import CaseFiles, read_arrays


def call_with_other_inputs(name: str, files: CaseFiles, calls: int) -> list[np.ndarray]:
    """Return the first output of each call; after each, 1 is added to the first input where it is in memory."""
    inputs = list(read_arrays(files.inputs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_runtimes, "read_arrays", lambda _: iter(inputs))
        side = onnx_runtimes.load_runtime(name, 1, files)
    outputs = []
    for _ in range(calls):
        outputs.append(np.array(side.arrays(side.call())[0]))
        inputs[0] += 1
    return outputs
