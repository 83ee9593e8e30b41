"""Our compiled library as a contestant: TVM's runtime, the library and its weights, without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from mlc_controlnet.bench.operations.case_files import CaseFiles, read_arrays
from mlc_controlnet.bench.operations.contestant import Side


def load_ours(library: Path, device_kind: str, files: CaseFiles) -> Side:
    """Load the function of a case from the compiled `library`. device_kind: as TVM names it, such as cpu or cuda."""
    device = tvm.device(device_kind)
    function = relax.VirtualMachine(tvm.runtime.load_module(str(library)), device)[files.name]
    inputs = [tvm.runtime.tensor(array, device) for array in read_arrays(files.inputs)]
    params = tuple(tvm.runtime.tensor(array, device) for array in read_arrays(files.params))
    return Side(lambda: function(*inputs, params), device.sync, _arrays)


def _arrays(result: Any) -> Sequence[np.ndarray]:
    return [tensor.numpy() for tensor in ([result] if hasattr(result, "numpy") else result)]
