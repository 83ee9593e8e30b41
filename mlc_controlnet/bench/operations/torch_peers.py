"""torch as a contestant, eager and with torch.compile."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mlc_controlnet.bench.operations.case_files import CaseFiles
from mlc_controlnet.bench.operations.contestant import Side
from mlc_controlnet.bench.torch_device import synchronize

EAGER, COMPILED = "torch eager", "torch.compile"


def load_torch(name: str, device_name: str, threads: int, files: CaseFiles) -> Side:
    """Load the module of a case. torch.compile compiles C++ code, at the first call.

    name: EAGER or COMPILED. device_name: as torch names it.
    """
    torch.set_num_threads(threads)
    device = torch.device(device_name)
    module, inputs = torch.load(files.module, map_location=device, weights_only=False)
    run = torch.compile(module, dynamic=False) if name == COMPILED else module

    def call() -> Any:
        with torch.inference_mode():
            return run(*inputs)

    return Side(call, lambda: synchronize(device), _arrays)


def _arrays(result: Any) -> Sequence[np.ndarray]:
    return [tensor.cpu().numpy() for tensor in ([result] if isinstance(result, torch.Tensor) else result)]
