"""Stable Diffusion 1.5 with Control-LoRAs of published shapes, rank 128: bytes on the wire, and the work of the GPU.

The weights hold no values, as in tests/test_full_size.py.
"""

import dataclasses

import pytest
import torch
from diffusers import ControlNetModel

from mlc_controlnet.capture import CapturedModel, capture, share_weights, stored_bytes
from mlc_controlnet.capture.merge import merge_module
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.checkpoint.weight_update import Product
from mlc_controlnet.compile.library import count_launches_and_bytes, generate_code, tvm_target
from mlc_controlnet.components import CONTROLNET, UNET
from mlc_controlnet.config import TARGETS
from mlc_controlnet.passes.check.check_webgpu_limits import measure_requirements
from mlc_controlnet.passes.pipeline import Pipeline, clean
from tests.test_full_size import MEGA, MIB, stable_diffusion, wgsl

__all__ = ["stable_diffusion"]  # a fixture
pytestmark = pytest.mark.integration

RANK = 128
WHOLE = "controlnet_"  # the layers of the control image, and the convolutions before the residuals


def products(controlnet: ControlNetModel) -> dict[str, Product]:
    def factors(weight: torch.Tensor) -> Product:
        rows, *columns = weight.shape
        return Product(torch.empty(rows, RANK, dtype=torch.float16), torch.empty(RANK, *columns, dtype=torch.float16))

    parameters = controlnet.named_parameters()
    return {key: factors(p) for key, p in parameters if p.ndim > 1 and not key.startswith(WHOLE)}


@pytest.fixture(scope="module")
def control_lora(stable_diffusion: Checkpoint) -> Checkpoint:
    controlnet = stable_diffusion.parts[CONTROLNET]
    for parameter in controlnet.parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0)  # a file has its own, which are not the UNet's
    own = {CONTROLNET: products(controlnet)}
    return dataclasses.replace(stable_diffusion, components=(CONTROLNET, UNET), control_loras=own)


@pytest.fixture(scope="module")
def shared(control_lora: Checkpoint) -> CapturedModel:
    return share_weights(clean(capture(control_lora, "float16")), control_lora)


def test_a_control_lora_of_rank_128_adds_a_fifth_of_its_controlnet(
    control_lora: Checkpoint, shared: CapturedModel
) -> None:
    """With the 2.2 MB of the layers of the control image, 136 MB and 723: the sizes of the published files."""
    stored, alone = (count / MEGA for count in stored_bytes(shared, CONTROLNET, control_lora))
    print(f"Stable Diffusion 1.5, rank {RANK}: {stored:.1f} MB on the wire instead of {alone:.1f}")
    assert 720 < alone < 721
    assert stored < 133.6


def test_the_gpu_makes_its_weights_within_the_limits_of_every_device(shared: CapturedModel) -> None:
    target = tvm_target(TARGETS["webgpu"])
    after = dict(Pipeline(target).walk(merge_module((merge.shape for merge in shared.merges.values()), "float16")))
    launches, activation_bytes = count_launches_and_bytes(after["plan"])
    limits = measure_requirements(after["check"]).limits
    assert limits["maxStorageBufferBindingSize"] <= 50 * MIB
    assert limits["maxStorageBuffersPerShaderStage"] <= 8
    assert limits["maxComputeWorkgroupStorageSize"] <= 16384
    assert sum(map(len, wgsl(generate_code(after["plan"], target).mod))) <= 0.33 * MEGA
    assert max(activation_bytes.values()) <= 82 * MEGA  # before any component's are there
    assert len(launches) <= 26
    assert sum(launches[merge.shape.function] for merge in shared.merges.values()) <= 315  # once
