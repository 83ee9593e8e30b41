"""Native peers that run an ONNX file compute what torch computes, in float32. Each runs in a process of its own."""

import numpy as np
import pytest
import torch

from mlc_controlnet.bench.operations.case_files import CaseFiles, write_arrays
from mlc_controlnet.bench.operations.onnx_peer import export_onnx
from mlc_controlnet.bench.operations.onnx_runtimes import ONNXRUNTIME, OPENVINO, runtime_versions
from mlc_controlnet.bench.operations.operations import Geglu
from mlc_controlnet.bench.own_process import OwnProcess
from mlc_controlnet.parity.parity import signal_to_noise_db
from tests.bench.operations.runtime_calls import call_with_other_inputs


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Geglu, torch.Tensor, CaseFiles]:
    torch.manual_seed(0)
    module, x = Geglu(64).eval(), torch.randn(1, 7, 64)
    files = CaseFiles(tmp_path_factory.mktemp("onnx"), "geglu")
    export_onnx(module, (x,), files.onnx, external_data=True)
    assert files.onnx_weights.is_file()
    write_arrays(files.inputs, [x.numpy()])
    return module, x, files


@pytest.mark.parametrize("name", [ONNXRUNTIME, OPENVINO])
def test_a_runtime_computes_in_float32_and_reads_its_input_where_it_is(
    name: str, gated: tuple[Geglu, torch.Tensor, CaseFiles]
) -> None:
    module, x, files = gated
    with OwnProcess(name, needs_torch=False) as process:
        outputs = process.call(call_with_other_inputs, name, files, 2)
    for number, got in enumerate(outputs):
        with torch.no_grad():
            assert signal_to_noise_db(module(x + number).numpy(), got) > 100  # bfloat16: about 45


def test_versions_are_those_of_the_packages() -> None:
    assert list(runtime_versions([ONNXRUNTIME, OPENVINO])) == [ONNXRUNTIME, OPENVINO]
    assert np.all([version[0].isdigit() for version in runtime_versions([ONNXRUNTIME, OPENVINO]).values()])
