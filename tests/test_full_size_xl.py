"""Stable Diffusion XL with a ControlNet, compiled for WebGPU: what a GPU has to launch, to hold and to compile.

The weights hold no values, as in tests/test_full_size.py. Pictures of 1024x1024 go through the VAE in tiles of 512x512;
those of 512x512 are a Turbo model's.
"""

import pytest

from mlc_controlnet.capture import CapturedModel, Quantizer, capture
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.checkpoint.modules import build_empty
from mlc_controlnet.checkpoint.text_encoders import without_last_layer
from mlc_controlnet.compile.library import count_launches_and_bytes, generate_code, tvm_target
from mlc_controlnet.components import COMPONENTS, TEXT_ENCODER_2, ModelShape, components_of
from mlc_controlnet.config import TARGETS, Defaults
from mlc_controlnet.passes.check.check_webgpu_limits import measure_requirements
from mlc_controlnet.passes.pipeline import Pipeline, clean
from mlc_controlnet.passes.quantize.find_weights import find_weights
from mlc_controlnet.passes.quantize.quantize_model import formats_of_components, quantize_model
from tests.fixtures.full_size_xl import CHANNELS, POOLED, published_parts
from tests.test_full_size import MEGA, Budget, memory_plan, wgsl, without_values

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TILE = 512
# Of a GPU's memory, with every component's weights as int4: all in it, and in the reduced mode.
FOUR_BITS_RESIDENT_MEGABYTES, FOUR_BITS_REDUCED_MEGABYTES = 3191, 2106
LAUNCHES = {
    "text_encoder": 81,
    "text_encoder_2": 263,
    "control_embedding": 9,
    "controlnet": 482,
    "residual_sum": 10,
    "unet": 982,
    "vae_decoder": 186,
    "vae_encoder": 79,
}
BUDGETS = {
    1024: Budget(
        launches=LAUNCHES,
        activation_megabytes={
            "text_encoder": 0.84,
            "text_encoder_2": 1.8,
            "control_embedding": 77.7,
            "controlnet": 141.4,
            "residual_sum": 53.8,
            "unet": 124.7,
            "vae_decoder": 187.9,
            "vae_encoder": 151.2,
        },
        wgsl_megabytes=1.57,
        resident_megabytes=9705,
        reduced_megabytes=6636,
        largest_binding_mebibytes=64,
    ),
    512: Budget(
        launches={**LAUNCHES, "controlnet": 480, "unet": 979},
        activation_megabytes={
            "text_encoder": 0.84,
            "text_encoder_2": 1.8,
            "control_embedding": 19.4,
            "controlnet": 37.2,
            "residual_sum": 13.5,
            "unet": 32.6,
            "vae_decoder": 187.9,
            "vae_encoder": 151.2,
        },
        wgsl_megabytes=1.5,
        resident_megabytes=9555,
        reduced_megabytes=6499,
        largest_binding_mebibytes=64,
    ),
}


def stable_diffusion_xl(size: int) -> Checkpoint:
    sources = published_parts()
    sources["text_encoder"] = without_last_layer(sources["text_encoder"])
    parts = without_values({part: build_empty(source, part) for part, source in sources.items()})
    shape = ModelShape(
        height=size,
        width=size,
        tokens=77,
        text_width=768 + 1280,
        latent_channels=4,
        sample_channels=4,
        unet_channels=CHANNELS,
        layers_per_block=2,
        text_layers=11,
        text_width_2=1280,
        text_layers_2=31,
        pooled_width=POOLED,
        vae_tile=(TILE, TILE),
    )
    components = components_of((*COMPONENTS, TEXT_ENCODER_2), controlnets=1)
    return Checkpoint("sdxl", components, parts, {}, b"", {}, shape, Defaults(20, 7.5, 1.0))


@pytest.mark.parametrize("size", BUDGETS)
def test_the_whole_set_keeps_its_budget(size: int) -> None:
    budget, model = BUDGETS[size], stable_diffusion_xl(size)
    target = tvm_target(TARGETS["webgpu"])
    captured = clean(capture(model, "float16"))
    after = dict(Pipeline(target).walk(captured.module))
    needs = measure_requirements(after["check"])
    launches, activation_bytes = count_launches_and_bytes(after["plan"])

    over = {name: count for name, count in launches.items() if count > budget.launches[name]}
    over |= {name: size for name, size in activation_bytes.items() if size > budget.activation_megabytes[name] * MEGA}
    over |= {name: need for name, need in needs.limits.items() if need > budget.limits[name]}
    assert not over
    assert set(launches) == {*COMPONENTS, TEXT_ENCODER_2}
    memory = memory_plan(model, captured, activation_bytes)
    assert memory.resident.peak_bytes <= budget.resident_megabytes * MEGA
    assert memory.reduced.peak_bytes <= budget.reduced_megabytes * MEGA
    four_bits = memory_plan(model, quantized_to_four_bits(captured), activation_bytes)
    assert four_bits.resident.peak_bytes <= FOUR_BITS_RESIDENT_MEGABYTES * MEGA
    assert four_bits.reduced.peak_bytes <= FOUR_BITS_REDUCED_MEGABYTES * MEGA
    library = generate_code(after["plan"], target)
    assert sum(len(text) for text in wgsl(library.mod)) <= budget.wgsl_megabytes * MEGA


def quantized_to_four_bits(captured: CapturedModel) -> CapturedModel:
    """Every component's weights as int4, whose sizes need no values."""
    places = find_weights(captured)
    return quantize_model(captured, formats_of_components(captured, lambda _: "int4", places), places, Quantizer())
