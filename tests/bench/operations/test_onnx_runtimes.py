"""Native peers that run an ONNX file compute what torch computes, in float32."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mlc_controlnet.bench.operations.onnx_peer import export_onnx
from mlc_controlnet.bench.operations.onnx_runtimes import ONNXRUNTIME, OPENVINO, load_runtime, runtime_versions
from mlc_controlnet.bench.operations.operations import Geglu
from mlc_controlnet.parity.parity import signal_to_noise_db

pytestmark = pytest.mark.slow  # they stay in the process, see test_contests.py


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Geglu, torch.Tensor, Path]:
    torch.manual_seed(0)
    module, x = Geglu(64).eval(), torch.randn(1, 7, 64)
    file = tmp_path_factory.mktemp("onnx") / "geglu.onnx"
    export_onnx(module, (x,), file, external_data=True)
    return module, x, file


@pytest.mark.parametrize("name", [ONNXRUNTIME, OPENVINO])
def test_a_runtime_computes_in_float32_and_reads_its_input_where_it_is(
    name: str, gated: tuple[Geglu, torch.Tensor, Path]
) -> None:
    module, x, file = gated
    memory = x.numpy().copy()
    call = load_runtime(name, file, [memory], threads=1)
    for _ in range(2):
        (got,) = call()
        with torch.no_grad():
            assert signal_to_noise_db(module(torch.from_numpy(memory)).numpy(), got) > 100  # bfloat16: about 45
        memory += 1


def test_versions_are_those_of_the_packages() -> None:
    assert list(runtime_versions([ONNXRUNTIME, OPENVINO])) == [ONNXRUNTIME, OPENVINO]
    assert np.all([version[0].isdigit() for version in runtime_versions([ONNXRUNTIME, OPENVINO]).values()])
