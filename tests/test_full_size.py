"""Stable Diffusion 1.5 at 512x512, compiled for WebGPU: what a GPU has to launch, to hold and to compile.

The weights hold no values, so that nothing is downloaded and a gigabyte is enough: no figure here depends on one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
import tvm
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from mlc_controlnet.bundle.manifest import ComponentEntry, Library, MemoryPlan
from mlc_controlnet.bundle.params import DTYPE_BYTES, ParamRecord, ParamsSpec
from mlc_controlnet.capture import CapturedModel, Quantizer, capture
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.compile.library import count_launches_and_bytes, generate_code, tvm_target
from mlc_controlnet.components import COMPONENTS, ModelShape
from mlc_controlnet.config import TARGETS, Defaults
from mlc_controlnet.config import Budget as BitBudget
from mlc_controlnet.export.weight_residency import plan_residency
from mlc_controlnet.passes.check.check_webgpu_limits import measure_requirements
from mlc_controlnet.passes.pipeline import Pipeline, clean
from mlc_controlnet.passes.quantize.find_weights import find_weights
from mlc_controlnet.passes.quantize.keep_float16 import keep_float16
from mlc_controlnet.passes.quantize.quantize_model import formats_of_components, quantize_model
from mlc_controlnet.quantize.formats import FORMATS
from tests.fixtures.few_bits import stored_megabytes, with_mixed_bits

pytestmark = pytest.mark.integration

MEGA = 1e6
MIB = 2**20
BLOCKS = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4


def without_values(parts: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The modules of meta tensors on the CPU, in memory that nobody touches; buffers count up, as position ids do."""
    for module in parts.values():
        module.to_empty(device="cpu").requires_grad_(False)
        for buffer in module.buffers():
            buffer.copy_(torch.arange(buffer.numel()).view(buffer.shape))
    return parts


@pytest.fixture(scope="module")
def stable_diffusion() -> Checkpoint:
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        parts = {
            "text_encoder": CLIPTextModel(CLIPTextConfig(vocab_size=49408, hidden_act="quick_gelu", **text)),
            "unet": unet,
            "controlnet": ControlNetModel(cross_attention_dim=768),
            "vae": AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=BLOCKS[0],
                up_block_types=BLOCKS[1],
                layers_per_block=2,
                latent_channels=4,
                sample_size=512,
            ),
        }
    shape = ModelShape(
        height=512,
        width=512,
        tokens=77,
        text_width=768,
        latent_channels=4,
        sample_channels=4,
        unet_channels=tuple(unet.config.block_out_channels),
        layers_per_block=2,
    )
    return Checkpoint("sd15", COMPONENTS, without_values(parts), {}, b"", {}, shape, Defaults(20, 7.5, 1.0))


@pytest.fixture(scope="module")
def in_float16(stable_diffusion: Checkpoint) -> CapturedModel:
    return clean(capture(stable_diffusion, "float16"))


@dataclass(frozen=True)
class Budget:
    """Upper bounds; what is reached today. They go down, never up."""

    launches: dict[str, int]
    activation_megabytes: dict[str, float]
    wgsl_megabytes: float
    resident_megabytes: float  # of a GPU's memory: everything stays there
    reduced_megabytes: float  # weights come for a component's turn
    largest_binding_mebibytes: int

    @property
    def limits(self) -> dict[str, int]:
        """Upper bounds for every limit that a library asks of its device; WebGPU's defaults, but for large buffers."""
        return {
            "maxComputeInvocationsPerWorkgroup": 256,
            "maxComputeWorkgroupStorageSize": 16384,
            "maxStorageBuffersPerShaderStage": 8,
            "maxComputeWorkgroupsPerDimension": 65535,
            "maxStorageBufferBindingSize": self.largest_binding_mebibytes * MIB,
            "maxBufferSize": self.largest_binding_mebibytes * MIB,
        }


BUDGETS = {
    "float16": Budget(
        launches={
            "text_encoder": 89,
            "control_embedding": 9,
            "controlnet": 190,
            "residual_sum": 13,
            "unet": 413,
            "vae_decoder": 186,
            "vae_encoder": 79,
        },
        activation_megabytes={
            "text_encoder": 0.84,
            "control_embedding": 19.4,
            "controlnet": 44.4,
            "residual_sum": 13.5,
            "unet": 38.4,
            "vae_decoder": 187.9,
            "vae_encoder": 151.2,
        },
        wgsl_megabytes=1.70,
        resident_megabytes=2984,
        reduced_megabytes=2131,
        largest_binding_mebibytes=64,
    ),
    "float32": Budget(
        launches={
            "text_encoder": 89,
            "control_embedding": 8,
            "controlnet": 188,
            "residual_sum": 13,
            "unet": 412,
            "vae_decoder": 188,
            "vae_encoder": 80,
        },
        activation_megabytes={
            "text_encoder": 1.7,
            "control_embedding": 38.8,
            "controlnet": 88.8,
            "residual_sum": 26.9,
            "unet": 76.7,
            "vae_decoder": 372.6,
            "vae_encoder": 310.6,  # the weights of attention are a plane of their own
        },
        wgsl_megabytes=1.50,
        resident_megabytes=5959,
        reduced_megabytes=4255,
        largest_binding_mebibytes=128,  # WebGPU's default
    ),
}


# With --weights palette6, the launches and activations of float16, but for one kernel of the decoder, which would bind
# nine buffers.
PALETTE6 = replace(
    BUDGETS["float16"],
    launches=BUDGETS["float16"].launches | {"vae_decoder": 187},
    activation_megabytes=BUDGETS["float16"].activation_megabytes | {"vae_decoder": 221.5},
    wgsl_megabytes=1.76,
    resident_megabytes=1330.3,
    reduced_megabytes=888.9,
)
# Of text encoder, ControlNet and its embedding, UNet and decoder, by --weights.
WEIGHT_MEGABYTES = {"float16": 2786.8, "int8": 1474.6, "palette6": 1099.5, "int4": 839.6, "palette4": 758.5}


def test_the_whole_set_keeps_its_budget(stable_diffusion: Checkpoint, in_float16: CapturedModel) -> None:
    keeps(BUDGETS["float16"], stable_diffusion, in_float16)


def test_the_whole_set_in_float32_keeps_its_budget(stable_diffusion: Checkpoint) -> None:
    keeps(BUDGETS["float32"], stable_diffusion, clean(capture(stable_diffusion, "float32")))


@pytest.mark.slow
def test_packed_weights_cost_no_launches_and_little_wgsl(
    stable_diffusion: Checkpoint, in_float16: CapturedModel
) -> None:
    places = find_weights(in_float16)
    formats = formats_of_components(in_float16, lambda _: "palette6", places)
    keeps(PALETTE6, stable_diffusion, quantize_model(in_float16, formats, places, Quantizer()))


@pytest.mark.parametrize("weights", WEIGHT_MEGABYTES)
def test_weights_of_few_bits_take_no_more_bytes(in_float16: CapturedModel, weights: str) -> None:
    places = find_weights(in_float16) if weights in FORMATS else {}
    stored = 0
    for component, own in in_float16.params.items():
        types = in_float16.module[in_float16.function_of(component)].params[-1].ty.fields
        for param, ty in zip(own, types, strict=True):
            plain = DTYPE_BYTES["float16"] * math.prod(map(int, ty.shape))
            packed = places[param].scheme(*FORMATS[weights]).bytes if param in places else plain
            stored += packed if component != "vae_encoder" else 0
    assert stored <= WEIGHT_MEGABYTES[weights] * MEGA


@pytest.mark.parametrize(
    ("budget", "megabytes", "resident", "reduced"),
    [("4.5bits", 839.6, 1070.5, 739.1), ("850MB", 850.0, 1080.9, 728.5)],
)
def test_mixed_bits_fit_a_download_of_850_megabytes_and_a_gpu_with_1200(
    stable_diffusion: Checkpoint,
    in_float16: CapturedModel,
    budget: str,
    megabytes: float,
    resident: float,
    reduced: float,
) -> None:
    """Activations are those of palette6, whose kernels bind the same buffers."""
    drawing = tuple(name for name in in_float16.params if name != "vae_encoder")
    checkpoint = replace(stable_diffusion, components=drawing)
    captured = replace(in_float16, params={name: in_float16.params[name] for name in drawing})
    packed = with_mixed_bits(captured, checkpoint, BitBudget.parse(budget))
    memory = memory_plan(checkpoint, packed, bytes_of(PALETTE6.activation_megabytes))
    assert stored_megabytes(packed, checkpoint) <= megabytes
    assert memory.resident.peak_bytes <= resident * MEGA
    assert memory.reduced.peak_bytes <= reduced * MEGA


@pytest.mark.slow
def test_mixed_bits_cost_little_wgsl(stable_diffusion: Checkpoint, in_float16: CapturedModel) -> None:
    """How much a weight matters is drawn."""
    packed = with_mixed_bits(in_float16, stable_diffusion, BitBudget.parse("4.5bits"), spread=1.0)
    target = tvm_target(TARGETS["webgpu"])
    planned = dict(Pipeline(target).walk(packed.module))["plan"]
    assert sum(len(text) for text in wgsl(generate_code(planned, target).mod)) <= 1.99 * MEGA


def bytes_of(megabytes: Mapping[str, float]) -> dict[str, int]:
    """Activations of components, at most."""
    return {name: int(size * MEGA) for name, size in megabytes.items()}


def keeps(budget: Budget, checkpoint: Checkpoint, captured: CapturedModel) -> None:
    """Check that every figure of a model in phase clean stays within its bounds."""
    target = tvm_target(TARGETS["webgpu"])
    after = dict(Pipeline(target).walk(captured.module))
    needs = measure_requirements(after["check"])
    launches, activation_bytes = count_launches_and_bytes(after["plan"])
    library = generate_code(after["plan"], target)

    over = {name: count for name, count in launches.items() if count > budget.launches[name]}
    over |= {name: size for name, size in activation_bytes.items() if size > budget.activation_megabytes[name] * MEGA}
    over |= {name: need for name, need in needs.limits.items() if need > budget.limits[name]}
    assert not over
    assert set(launches) == set(COMPONENTS)
    assert sum(len(text) for text in wgsl(library.mod)) <= budget.wgsl_megabytes * MEGA
    memory = memory_plan(checkpoint, captured, activation_bytes)
    assert memory.resident.peak_bytes <= budget.resident_megabytes * MEGA
    assert memory.reduced.peak_bytes <= budget.reduced_megabytes * MEGA


@pytest.mark.slow
def test_on_a_processor_weights_in_float16_leave_room_in_four_gigabytes(stable_diffusion: Checkpoint) -> None:
    captured = clean(capture(stable_diffusion, "float32"))
    planned = Pipeline(tvm_target(TARGETS["llvm"], "x86-64-v3")).run(keep_float16(captured).module)
    _, activation_bytes = count_launches_and_bytes(planned)
    narrow, wide = (memory_plan(stable_diffusion, captured, activation_bytes, dtype) for dtype in ("float16", ""))
    assert narrow.resident.peak_bytes <= 3476 * MEGA
    assert narrow.reduced.peak_bytes <= 2432 * MEGA
    assert wide.resident.peak_bytes - narrow.resident.peak_bytes >= 2784 * MEGA


def memory_plan(
    checkpoint: Checkpoint, captured: CapturedModel, activation_bytes: dict[str, int], memory_dtype: str = ""
) -> MemoryPlan:
    """As a build plans it, from the shapes alone."""
    components, records = {}, []
    for name, spec in checkpoint.specs.items():
        weights = captured.module[name].params[-1].ty.fields
        names = tuple(param.name for param in captured.params[name])
        components[name] = ComponentEntry(name, spec.inputs, spec.outputs, names)
        for param, ty in zip(names, weights, strict=True):
            shape = tuple(map(int, ty.shape))
            dtype = "uint32" if ty.dtype == "uint32" else "float16"  # the codes of a quantized weight, or any other
            records.append(ParamRecord(param, shape, dtype, 0, 0, DTYPE_BYTES[dtype] * math.prod(shape)))
    library = Library("sd15.wasm", "webgpu", captured.dtype, (), {}, activation_bytes, {}, 0, memory_dtype=memory_dtype)
    params = ParamsSpec("float16", sum(record.bytes for record in records), (), tuple(records))
    return plan_residency([library], components, params)[library.file]


def wgsl(module: tvm.runtime.Module) -> list[str]:
    """The shaders of a compiled module."""
    own = [imported.inspect_source() for imported in module.imports if imported.kind == "webgpu"]
    return own + [text for imported in module.imports for text in wgsl(imported)]
