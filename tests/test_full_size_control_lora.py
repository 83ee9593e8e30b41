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
from mlc_controlnet.components import CONTROL_EMBEDDING, CONTROLNET, TEXT_ENCODER, UNET, VAE_DECODER
from mlc_controlnet.config import TARGETS, Budget
from mlc_controlnet.passes.check.check_webgpu_limits import measure_requirements
from mlc_controlnet.passes.pipeline import Pipeline, clean
from tests.fixtures.few_bits import in_format, stored_megabytes, tiny_autoencoder, with_mixed_bits
from tests.test_full_size import (
    MEGA,
    MIB,
    PALETTE6,
    bytes_of,
    memory_plan,
    stable_diffusion,
    wgsl,
    without_values,
)

__all__ = ["stable_diffusion"]  # a fixture
pytestmark = pytest.mark.integration

RANK = 128
DRAWING = (TEXT_ENCODER, CONTROL_EMBEDDING, CONTROLNET, UNET, VAE_DECODER)
# Of the tiny autoencoder's decoder at 512x512; tests/test_full_size_sdxs.py holds it.
TINY_DECODER_MEGABYTES = 103.9
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
    return dataclasses.replace(
        stable_diffusion,
        components=DRAWING,
        parts={**stable_diffusion.parts, **without_values({"vae": tiny_autoencoder()})},
        shape=dataclasses.replace(stable_diffusion.shape, encodes_to_moments=False),
        control_loras={CONTROLNET: products(controlnet)},
    )


@pytest.fixture(scope="module")
def captured(control_lora: Checkpoint) -> CapturedModel:
    return clean(capture(control_lora, "float16"))


@pytest.fixture(scope="module")
def shared(control_lora: Checkpoint, captured: CapturedModel) -> CapturedModel:
    return share_weights(captured, control_lora)


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


@pytest.mark.parametrize(
    ("budget", "megabytes", "resident", "reduced"),
    [("4.5bits", 812.5, 925.7, 660.8), ("700MB", 700.0, 813.3, 566.3)],
)
def test_with_few_bits_its_weights_are_merged_and_packed(
    control_lora: Checkpoint,
    captured: CapturedModel,
    shared: CapturedModel,
    budget: str,
    megabytes: float,
    resident: float,
    reduced: float,
) -> None:
    """Factors would keep the weights of the UNet's encoder in float16. The decoder is a tiny autoencoder's."""
    merged = share_weights(captured, control_lora, functions=())
    packed = with_mixed_bits(merged, control_lora, Budget.parse(budget))
    activations = {**PALETTE6.activation_megabytes, VAE_DECODER: TINY_DECODER_MEGABYTES}
    memory = memory_plan(control_lora, packed, bytes_of(activations))
    assert stored_megabytes(packed, control_lora) <= megabytes
    assert memory.resident.peak_bytes <= resident * MEGA
    assert memory.reduced.peak_bytes <= reduced * MEGA
    assert megabytes < stored_megabytes(in_format(shared, "int4"), control_lora) - 400  # 4.5 bits, too
