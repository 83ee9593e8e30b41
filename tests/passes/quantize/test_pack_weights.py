import numpy as np
import pytest
import torch
import tvm
from tvm import relax

from mlc_controlnet.capture import CapturedModel, PackedParam
from mlc_controlnet.compile.library import count_launches_and_bytes, tvm_target
from mlc_controlnet.config import TARGETS
from mlc_controlnet.kernels.decoding import reads_words
from mlc_controlnet.parity.parity import signal_to_noise_db
from mlc_controlnet.passes.pipeline import Pipeline
from mlc_controlnet.quantize.weight import dequantize
from tests.passes.quantize.packed_model import captured_layers, inputs, layers, packed_layers, tensors_of

SCHEMES = [("linear", 8), ("linear", 4), ("palette", 6), ("palette", 4), ("palette", 2), ("palette", 8)]


def run(captured: CapturedModel) -> np.ndarray:
    target = tvm_target(TARGETS["llvm"])
    with target:
        library = tvm.compile(Pipeline(target).run(captured.module), target=target, relax_pipeline=None)
    vm = relax.VirtualMachine(library, tvm.cpu())
    tensors = tensors_of(layers())
    params = []
    for param in captured.params["unet"]:
        value = param.read(tensors).numpy()
        params.append(tvm.runtime.tensor(value if value.dtype == np.uint32 else value.astype(captured.dtype)))
    arguments = [tvm.runtime.tensor(x.numpy().astype(captured.dtype)) for x in inputs()]
    return vm["unet"](*arguments, tuple(params)).numpy()


def reference(captured: CapturedModel) -> np.ndarray:
    """What torch computes with the decoded weights."""
    tensors = tensors_of(layers())
    model = layers()
    for packed in captured.params["unet"]:
        if isinstance(packed, PackedParam) and packed.stores == "words":
            quantized = packed.quantizer.quantize(packed.weight, packed.scheme, tensors)
            stored = torch.from_numpy(dequantize(quantized)).reshape(packed.weight.shape(tensors))
            axes = packed.weight.axes
            stored = stored.permute(tuple(np.argsort(axes).tolist())) if axes else stored
            first = 0
            for rows in packed.weight.rows:
                own = model.get_parameter(rows.tensor.removeprefix("unet."))
                own.data = stored[first : first + own.shape[0]].contiguous()
                first += own.shape[0]
    return model(*inputs()).numpy()


@pytest.mark.parametrize(("method", "bits"), SCHEMES)
def test_a_processor_computes_with_packed_weights_what_torch_computes_with_decoded_ones(method: str, bits: int) -> None:
    captured = packed_layers(method, bits, "float32")
    assert signal_to_noise_db(reference(captured), run(captured)) > 60


def test_float16_keeps_forty_decibels() -> None:
    captured = packed_layers("palette", 6, "float16")
    assert signal_to_noise_db(reference(captured), run(captured)) > 40


def test_no_kernel_holds_a_decoded_weight_in_memory() -> None:
    target = tvm_target(TARGETS["webgpu"])
    module = Pipeline(target).run(packed_layers("palette", 6, "float16").module, "schedule")
    kernels = [f for f in module.functions.values() if isinstance(f, tvm.tirx.PrimFunc)]
    decoding = [kernel for kernel in kernels if reads_words(kernel)]
    assert len(decoding) == 7
    for kernel in decoding:
        allocated = [line for line in kernel.script().splitlines() if "alloc_buffer" in line]
        assert allocated
        assert all('scope="shared"' in line or 'scope="local"' in line for line in allocated)


def test_packed_weights_are_decoded_in_the_kernels_that_read_them() -> None:
    """Packing adds no launch."""
    target = tvm_target(TARGETS["webgpu"])
    models = captured_layers("float16"), packed_layers("linear", 8, "float16")
    plain, packed = (count_launches_and_bytes(Pipeline(target).run(model.module))[0] for model in models)
    assert plain == packed
