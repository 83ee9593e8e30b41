"""Loading: a folder in diffusers' layout -> modules, or one message that names what is wrong."""

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mlc_controlnet.checkpoint import Checkpoint, find_model, load_checkpoint
from mlc_controlnet.errors import UserError

VAE_WEIGHTS = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(random_model: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(random_model, tmp_path / "model"))


def test_weights_are_what_a_float16_bundle_can_hold(checkpoint: Checkpoint) -> None:
    for name, tensor in checkpoint.tensors().items():
        assert tensor.dtype == torch.float16, name
        assert tensor.isfinite().all(), name


def test_an_unknown_model_lists_the_bundled_ones() -> None:
    with pytest.raises(UserError, match=r"'squares'.*circles"):
        find_model("squares")


def test_a_folder_that_is_no_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no model_index\.json"):
        find_model(str(tmp_path))


def test_a_missing_part_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    with pytest.raises(UserError, match=r"vae/config\.json: got no such file"):
        load_checkpoint(folder)


def test_truncated_weights_are_refused(folder: Path) -> None:
    file = folder / VAE_WEIGHTS
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"diffusion_pytorch_model\.safetensors: got a damaged file"):
        load_checkpoint(folder)


def test_a_header_larger_than_the_file_is_refused(folder: Path) -> None:
    file = folder / VAE_WEIGHTS
    file.write_bytes(struct.pack("<Q", 2**60) + file.read_bytes()[8:])
    with pytest.raises(UserError, match="damaged file"):
        load_checkpoint(folder)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(folder: Path) -> None:
    weights = load_file(folder / VAE_WEIGHTS)
    weights["decoder.conv_in.weight"] = weights["decoder.conv_in.weight"][:, :3].contiguous()
    save_file(weights, folder / VAE_WEIGHTS)
    with pytest.raises(UserError, match=r"vae\.decoder\.conv_in\.weight: got \[64, 3, 3, 3\], wanted \[64, 4, 3, 3\]"):
        load_checkpoint(folder)


def test_missing_and_unknown_tensors_are_named(folder: Path) -> None:
    weights = load_file(folder / VAE_WEIGHTS)
    weights["quant_conv.weights"] = weights.pop("quant_conv.weight")
    save_file(weights, folder / VAE_WEIGHTS)
    with pytest.raises(UserError, match=r"lacks .*quant_conv\.weight.*has .*quant_conv\.weights"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "value,words",
    [(70000.0, r"a value of 70000\.0, wanted at most 65504"), (float("nan"), r"1 value\(s\) that are no numbers")],
)
def test_a_weight_that_float16_cannot_hold_is_named(folder: Path, value: float, words: str) -> None:
    weights = {key: tensor.float() for key, tensor in load_file(folder / VAE_WEIGHTS).items()}
    weights["quant_conv.bias"][0] = value
    save_file(weights, folder / VAE_WEIGHTS)
    with pytest.raises(UserError, match=rf"vae\.quant_conv\.bias: got {words}"):
        load_checkpoint(folder)


def test_a_size_that_the_unet_cannot_halve_is_refused(random_model: Path) -> None:
    with pytest.raises(
        UserError, match="width: got 132 pixels, wanted a positive multiple of 32; pass --width 128 or 160"
    ):
        load_checkpoint(random_model, height=128, width=132)


def test_a_model_recommends_its_own_guidance(folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"guidance_scale": 3.5}))
    assert load_checkpoint(folder).defaults.guidance_scale == 3.5


@pytest.mark.parametrize("value", ["many", True, [20]])
def test_a_recommendation_that_is_not_a_number_is_named(folder: Path, value: object) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"num_inference_steps": value}))
    with pytest.raises(UserError, match=r"generation_config\.json: num_inference_steps: got .*, wanted a number"):
        load_checkpoint(folder)


def test_a_configuration_may_have_a_byte_order_mark(folder: Path) -> None:
    """Editors on Windows write one."""
    for file in folder.glob("*/*config.json"):
        file.write_text(file.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert load_checkpoint(folder).shape.height == 128


def test_a_model_that_recommends_nothing_gets_stable_diffusions_values(checkpoint: Checkpoint) -> None:
    assert (checkpoint.defaults.guidance_scale, checkpoint.defaults.conditioning_scale) == (7.5, 1.0)


def test_what_a_distilled_model_recommends_itself_comes_first(folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"num_inference_steps": 2}))
    defaults = load_checkpoint(folder, name="mine-lcm").defaults
    assert (defaults.steps, defaults.guidance_scale) == (2, 1.0)


def test_fewer_hidden_layers_are_built_with_a_notice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The way to ask for CLIP skip in a folder: the last layer's weights are in the file, and are left out."""
    file = folder / "text_encoder" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_hidden_layers": 1}))
    layers = load_checkpoint(folder).parts["text_encoder"].encoder.layers
    assert len(layers) == 1
    notice = f"notice: {folder}/text_encoder: num_hidden_layers is 1, so the last 1 of 2 layers are left out\n"
    assert capsys.readouterr().err == notice


def test_a_file_in_float16_stays_where_it_is(random_model: Path) -> None:
    """Mapped into memory, and not copied: a build of Stable Diffusion holds its 2.9 GB once."""
    checkpoint = load_checkpoint(random_model)
    tensors = [tensor for tensor in checkpoint.tensors().values() if tensor.numel() > 4096]
    for tensor in tensors:
        assert _file_at(tensor.data_ptr()).endswith(".safetensors")


def _file_at(address: int) -> str:
    """The file that this process has mapped at `address`; empty where it is memory."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, last = line.split()
        start, stop = (int(end, 16) for end in span.split("-"))
        if start <= address < stop:
            return last
    raise ValueError(f"nothing is mapped at {address:#x}")
