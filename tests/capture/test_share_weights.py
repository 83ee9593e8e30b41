"""What a Control-LoRA adds to a bundle that holds its UNet."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tvm import relax

from mlc_controlnet.capture import CapturedModel, Param, capture, share_weights, stored_bytes
from mlc_controlnet.capture.merge import Merge
from mlc_controlnet.checkpoint import Checkpoint, load_checkpoint
from mlc_controlnet.components import CONTROLNET, UNET
from mlc_controlnet.config import LoraOption
from mlc_controlnet.passes.pipeline import clean
from tests.fixtures.control_lora import save_control_lora
from tests.fixtures.random_model import save_random_model

RANK = 4
OWN = "mid_block.resnets.0.conv2.weight"  # that the files do not hold: the UNet's
IN_PACK = "mid_block.attentions.0.transformer_blocks.0.attn1.to_k.weight"
BOTH = (CONTROLNET, UNET)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    save_random_model(folder / "model")
    for name, seed in (("canny", 1), ("depth", 2)):
        save_control_lora(folder / f"{name}.safetensors", folder / "model", RANK, seed, untold=[OWN])
    return folder


def load(folder: Path, *names: str, components: tuple[str, ...] = BOTH, **options: object) -> Checkpoint:
    files = {name: folder / f"{name}.safetensors" for name in names}
    return load_checkpoint(folder / "model", 96, 128, controlnets=files, components=components, **options)  # type: ignore[arg-type]


def share(checkpoint: Checkpoint) -> tuple[CapturedModel, CapturedModel]:
    """Cleaned, without and with `share_weights`."""
    cleaned = clean(capture(checkpoint))
    return cleaned, share_weights(cleaned, checkpoint)


def made(merge: Merge, checkpoint: Checkpoint) -> torch.Tensor:
    """What the device makes, in float32."""
    tensors = checkpoint.stored_tensors()
    shape, values = merge.shape, [source.read(tensors).float() for source in merge.sources]
    assert [tuple(value.shape) for value in values] == list(shape.arguments)
    count, axis = len(shape.bases), 1 if shape.outputs_last else 0
    matrices = [b.flatten(0, -2) if shape.outputs_last else b.flatten(1) for b in values[:count]]
    slices = [matrices[s.base].narrow(axis, s.start, s.stop - s.start) for s in shape.slices]
    products = [
        one for left, right in zip(values[count::2], values[count + 1 :: 2], strict=True) for one in left @ right
    ]
    return (torch.cat(slices, axis) + torch.cat(products, axis)).reshape(shape.result)


def assert_merges_make_their_params(model: CapturedModel, checkpoint: Checkpoint) -> None:
    tensors = checkpoint.tensors()
    for param, merge in model.merges.items():
        wanted = param.read(tensors).float()
        assert torch.allclose(made(merge, checkpoint), wanted, rtol=2**-11 * 1.01, atol=1e-7), param.name
        assert sum(p.bytes(checkpoint.stored_tensors()) for p in merge.sources[len(merge.shape.bases) :]) < param.bytes(
            tensors
        )


def relax_functions(model: CapturedModel) -> set[str]:
    return {v.name_hint for v, f in model.module.functions_items() if isinstance(f, relax.Function)}


def test_every_matrix_of_the_encoder_is_the_unets_and_factors(folder: Path) -> None:
    checkpoint = load(folder, "canny", "depth")
    plain, model = share(checkpoint)
    assert_merges_make_their_params(model, checkpoint)
    for component in (CONTROLNET, "controlnet_2"):
        own = [param for param in model.params[component] if param not in model.merges]
        matrices = [param for param in own if len(param.shape(checkpoint.tensors())) > 1]
        whole = [param.name for param in matrices if param not in model.params[UNET]]
        # The convolutions before the residuals, and the first one, which is smaller than its factors.
        assert {name.split(".")[1] for name in whole} <= {"controlnet_down_blocks", "controlnet_mid_block", "conv_in"}
        assert [param.name for param in matrices if param in model.params[UNET]] == [f"unet.{OWN}"]
        assert [param.shape(checkpoint.tensors()) for param in model.params[component]] == [
            param.shape(checkpoint.tensors()) for param in plain.params[component]
        ]
        stored, alone = stored_bytes(model, component, checkpoint)
        assert stored < 0.15 * alone
        assert stored_bytes(plain, component, checkpoint) == (alone, alone)
    assert any(len(param.rows) > 3 for param in model.merges)  # a pack of several widths
    added = relax_functions(model) - relax_functions(plain)
    assert added == {merge.shape.function for merge in model.merges.values()}
    assert len(added) < len(model.merges) / 3  # both Control-LoRAs call the same, and layers of one shape do


def test_a_shallow_unet_packs_its_weights_otherwise(folder: Path) -> None:
    checkpoint = load(folder, "canny", cached_branch=0)
    _, model = share(checkpoint)
    assert_merges_make_their_params(model, checkpoint)
    assert stored_bytes(model, CONTROLNET, checkpoint)[0] < 0.3 * stored_bytes(model, CONTROLNET, checkpoint)[1]


def test_a_weight_of_the_unet_that_a_lora_changes_is_no_base(folder: Path, tmp_path: Path) -> None:
    layer = "lora_unet_mid_block_resnets_0_conv1"
    lora = {f"{layer}.lora_up.weight": torch.ones(96, 1, 1, 1), f"{layer}.lora_down.weight": torch.ones(1, 96, 3, 3)}
    save_file(lora, tmp_path / "style.safetensors")
    checkpoint = load(folder, "canny", loras=[LoraOption(str(tmp_path / "style.safetensors"))])
    _, model = share(checkpoint)
    assert_merges_make_their_params(model, checkpoint)
    changed = Param.whole("controlnet.mid_block.resnets.0.conv1.weight")
    (own,) = [param for param in model.params[CONTROLNET] if param.rows == changed.rows]
    assert own not in model.merges
    assert Param.whole("controlnet.mid_block.resnets.1.conv1.weight").rows in [param.rows for param in model.merges]


def test_factors_that_are_no_smaller_are_merged_by_the_build(folder: Path, tmp_path: Path) -> None:
    save_control_lora(tmp_path / "large.safetensors", folder / "model", rank=200, seed=3)
    checkpoint = load_checkpoint(
        folder / "model", 96, 128, controlnets={"large": tmp_path / "large.safetensors"}, components=BOTH
    )
    plain, model = share(checkpoint)
    assert (model.params, model.merges) == (plain.params, {})
    assert stored_bytes(model, CONTROLNET, checkpoint)[0] == stored_bytes(model, CONTROLNET, checkpoint)[1]


def test_without_functions_the_device_makes_nothing_and_equal_weights_are_still_the_unets(folder: Path) -> None:
    checkpoint = load(folder, "canny")
    plain = clean(capture(checkpoint))
    model = share_weights(plain, checkpoint, functions=())
    assert model.merges == {}
    assert relax_functions(model) == relax_functions(plain)
    others = set(model.params[CONTROLNET]) - set(plain.params[CONTROLNET])
    assert [param.name for param in others] == [f"unet.{OWN}"]


def test_a_pack_of_which_one_layer_has_no_factors_is_merged_by_the_build(folder: Path, tmp_path: Path) -> None:
    save_control_lora(tmp_path / "part.safetensors", folder / "model", RANK, seed=3, untold=[IN_PACK])
    checkpoint = load_checkpoint(
        folder / "model", 96, 128, controlnets={"part": tmp_path / "part.safetensors"}, components=BOTH
    )
    _, model = share(checkpoint)
    assert_merges_make_their_params(model, checkpoint)
    (own,) = [p for p in model.params[CONTROLNET] if f"controlnet.{IN_PACK}" in [rows.tensor for rows in p.rows]]
    assert len(own.rows) == 3
    assert own not in model.merges


def test_of_an_inpainting_unet_the_first_convolution_has_other_inputs(tmp_path: Path) -> None:
    save_random_model(tmp_path / "model", sample_channels=9)
    save_control_lora(tmp_path / "canny.safetensors", tmp_path / "model", 1, 1)
    checkpoint = load(tmp_path, "canny")
    _, model = share(checkpoint)
    assert_merges_make_their_params(model, checkpoint)
    assert "controlnet.conv_in.weight" not in [param.name for param in model.merges]
    assert "controlnet.mid_block.resnets.0.conv1.weight" in [param.name for param in model.merges]


def test_a_bundle_without_the_unet_holds_the_controlnet_whole(folder: Path) -> None:
    checkpoint = load(folder, "canny", components=(CONTROLNET,))
    plain, model = share(checkpoint)
    assert model == plain
