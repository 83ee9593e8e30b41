"""SDXS with a ControlNet of the same encoder at 512x512, in few bits: its download and its memory of a GPU.

The weights hold no values, as in tests/test_full_size.py.
"""

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from mlc_controlnet.capture import CapturedModel, capture
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.checkpoint.modules import build_empty
from mlc_controlnet.compile.library import count_launches_and_bytes, tvm_target
from mlc_controlnet.components import CONTROL_EMBEDDING, CONTROLNET, TEXT_ENCODER, UNET, VAE_DECODER, ModelShape
from mlc_controlnet.config import TARGETS, Budget, Defaults
from mlc_controlnet.passes.pipeline import Pipeline, clean
from tests.checkpoint.test_published_configs import NOT_OF_A_CONTROLNET, SDXS, source
from tests.fixtures.few_bits import in_format, stored_megabytes, tiny_autoencoder, with_mixed_bits
from tests.test_full_size import MEGA, bytes_of, memory_plan, without_values

pytestmark = pytest.mark.integration

LAUNCHES = {TEXT_ENCODER: 89, CONTROL_EMBEDDING: 9, CONTROLNET: 67, UNET: 173, VAE_DECODER: 36}
ACTIVATION_MEGABYTES = {
    TEXT_ENCODER: 0.84,
    CONTROL_EMBEDDING: 19.4,
    CONTROLNET: 25.5,
    UNET: 27.1,
    VAE_DECODER: 103.9,
}
ONE_GRAPH = CONTROL_EMBEDDING, CONTROLNET, UNET, VAE_DECODER  # of lsb/sdxs-controlnet-sketch: a file of 429 MB


@pytest.fixture(scope="module")
def sdxs() -> Checkpoint:
    encoder = {key: value for key, value in SDXS.items() if key not in NOT_OF_A_CONTROLNET}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    with torch.device("meta"):
        text_encoder = CLIPTextModel(CLIPTextConfig(vocab_size=49408, hidden_act="quick_gelu", **text))
    parts = {
        "text_encoder": text_encoder,
        "unet": build_empty(source("unet", SDXS), "unet"),
        "controlnet": build_empty(source("controlnet", encoder), "controlnet"),
        "vae": tiny_autoencoder(),
    }
    shape = ModelShape(
        height=512,
        width=512,
        tokens=77,
        text_width=768,
        latent_channels=4,
        sample_channels=4,
        unet_channels=(320, 640, 1280),
        layers_per_block=1,
        encodes_to_moments=False,
    )
    return Checkpoint("sdxs", tuple(LAUNCHES), without_values(parts), {}, b"", {}, shape, Defaults(1, 1.0, 1.0))


@pytest.fixture(scope="module")
def captured(sdxs: Checkpoint) -> CapturedModel:
    return clean(capture(sdxs, "float16"))


@pytest.mark.parametrize(
    ("weights", "megabytes", "without_text", "resident", "reduced"),
    [
        ("palette6", 447.7, 307.2, 560.9, 378.8),
        ("4.5bits", 353.1, 234.0, 466.4, 295.6),
        ("350MB", 350.0, 231.0, 463.3, 292.3),
    ],
)
def test_weights_of_few_bits_take_no_more_bytes(
    sdxs: Checkpoint,
    captured: CapturedModel,
    weights: str,
    megabytes: float,
    without_text: float,
    resident: float,
    reduced: float,
) -> None:
    packed = packed_as(weights, sdxs, captured)
    memory = memory_plan(sdxs, packed, bytes_of(ACTIVATION_MEGABYTES))
    assert stored_megabytes(packed, sdxs) <= megabytes
    assert stored_megabytes(packed, sdxs, *ONE_GRAPH) <= without_text
    assert memory.resident.peak_bytes <= resident * MEGA
    assert memory.reduced.peak_bytes <= reduced * MEGA


@pytest.mark.slow
def test_the_whole_set_keeps_its_launches_and_activations(sdxs: Checkpoint, captured: CapturedModel) -> None:
    packed = packed_as("350MB", sdxs, captured)
    launches, activation_bytes = count_launches_and_bytes(Pipeline(tvm_target(TARGETS["webgpu"])).run(packed.module))
    most = bytes_of(ACTIVATION_MEGABYTES)
    assert not {name: count for name, count in launches.items() if count > LAUNCHES[name]}
    assert not {name: size for name, size in activation_bytes.items() if size > most[name]}
    assert set(launches) == set(LAUNCHES)


def packed_as(weights: str, sdxs: Checkpoint, captured: CapturedModel) -> CapturedModel:
    """A format, or the budget of mixed ones."""
    if weights == "palette6":
        return in_format(captured, weights)
    return with_mixed_bits(captured, sdxs, Budget.parse(weights))
