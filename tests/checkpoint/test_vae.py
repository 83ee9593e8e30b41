"""VAEs in the forms in which they are published, in the place of the model's own."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file
from torch import nn

from mlc_controlnet.checkpoint import Checkpoint, load_checkpoint
from mlc_controlnet.checkpoint.ldm_config import base_model
from mlc_controlnet.checkpoint.vae import read_vae
from mlc_controlnet.errors import UserError
from tests.checkpoint.conftest import VAE_WIDTHS, Tiny
from tests.checkpoint.original_layout import original_vae

BASE = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def first_folder(first: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first.save_folder(tmp_path_factory.mktemp("base") / "first")


@pytest.fixture(scope="module")
def other_vae() -> AutoencoderKL:
    """A VAE of Stable Diffusion's shape that is not the model's own."""
    torch.manual_seed(7)
    config = {**base_model(is_second=False)["vae"], "block_out_channels": VAE_WIDTHS, "latent_channels": 4}
    return randomized(AutoencoderKL.from_config(config))


@pytest.fixture(scope="module")
def taesd() -> AutoencoderTiny:
    """Of the published depth, narrower."""
    torch.manual_seed(8)
    return randomized(AutoencoderTiny(encoder_block_out_channels=(16,) * 4, decoder_block_out_channels=(16,) * 4))


def randomized(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return module.half().eval()


def write(tensors: Tensors, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, path)
    else:
        torch.save({"state_dict": tensors}, path)
    return path


def write_taesd(model: AutoencoderTiny, folder: Path, suffix: str = ".safetensors") -> Path:
    """taesd's two files, in which the decoder counts its clamp as the first layer. Returns the decoder's."""
    halves: dict[str, Tensors] = {"encoder": {}, "decoder": {}}
    for key, tensor in model.state_dict().items():
        half, _, layer, *rest = key.split(".")
        halves[half][".".join([str(int(layer) + (half == "decoder")), *rest])] = tensor
    write(halves["encoder"], folder / f"taesd_encoder{suffix}")
    return write(halves["decoder"], folder / f"taesd_decoder{suffix}")


def load(base: Path, vae: Path) -> Checkpoint:
    return load_checkpoint(base, 64, 128, vae=vae, components=BASE)


def assert_holds(checkpoint: Checkpoint, vae: nn.Module) -> None:
    got, wanted = dict(checkpoint.parts["vae"].named_parameters()), dict(vae.named_parameters())
    assert got.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert torch.equal(got[key], tensor), key


@pytest.mark.parametrize("name", ["vae-ft-mse-840000-ema-pruned.ckpt", "vae-ft-mse.safetensors"])
@pytest.mark.parametrize("prefix", ["first_stage_model.", ""])
def test_an_original_file_takes_the_place_of_the_models_own(
    first_folder: Path, other_vae: AutoencoderKL, tmp_path: Path, name: str, prefix: str
) -> None:
    tensors = {prefix + key: tensor for key, tensor in original_vae(other_vae.state_dict()).items()}
    left_behind = {f"{prefix}loss.logvar": torch.zeros(()), f"{prefix}model_ema.decay": torch.zeros(())}
    checkpoint = load(first_folder, write({**tensors, **left_behind}, tmp_path / name))
    assert_holds(checkpoint, other_vae)
    assert checkpoint.parts["vae"].config.scaling_factor == 0.18215
    assert checkpoint.specs["vae_encoder"].outputs[0].shape == (1, 8, 8, 16)


def test_a_single_file_with_diffusers_names_is_loaded(
    first_folder: Path, other_vae: AutoencoderKL, tmp_path: Path
) -> None:
    path = write(other_vae.state_dict(), tmp_path / "vae.safetensors")
    assert_holds(load(first_folder, path), other_vae)


def test_a_folder_of_a_vae_or_of_a_model_is_loaded(
    first_folder: Path, other_vae: AutoencoderKL, tmp_path: Path
) -> None:
    other_vae.save_pretrained(tmp_path / "model" / "vae")
    for folder in (tmp_path / "model", tmp_path / "model" / "vae"):
        assert_holds(load(first_folder, folder), other_vae)


def test_a_whole_model_in_the_original_layout_lends_its_vae(second: Tiny, first_folder: Path, tmp_path: Path) -> None:
    assert_holds(load(first_folder, write(second.original(), tmp_path / "v2.safetensors")), second.vae)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_either_of_taesds_files_brings_the_other(
    first_folder: Path, taesd: AutoencoderTiny, tmp_path: Path, suffix: str, half: str
) -> None:
    decoder = write_taesd(taesd, tmp_path, suffix)
    checkpoint = load(first_folder, decoder.with_name(decoder.name.replace("decoder", half)))
    assert_holds(checkpoint, taesd)
    assert checkpoint.specs["vae_encoder"].outputs[0].shape == (1, 4, 8, 16)  # latents, no moments
    assert checkpoint.shape.vae_scale_factor == 8


def test_taesds_configuration_is_found_out_from_its_shapes(taesd: AutoencoderTiny, tmp_path: Path) -> None:
    config = read_vae(write_taesd(taesd, tmp_path)).config
    wanted = {key: value for key, value in taesd.config.items() if key in config and not key.startswith("_")}
    assert len(wanted) == 15
    assert {key: tuple(config[key]) if isinstance(config[key], list) else config[key] for key in wanted} == wanted


def test_a_tiny_autoencoder_in_diffusers_layout_is_loaded(
    first_folder: Path, taesd: AutoencoderTiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taesd.save_pretrained(tmp_path / "taesd")
    for path in (tmp_path / "taesd", tmp_path / "taesd" / "diffusion_pytorch_model.safetensors"):
        assert_holds(load(first_folder, path), taesd)
    assert not caplog.records  # diffusers warns of a key that it writes itself


def test_a_models_own_vae_may_be_a_tiny_autoencoder(first_folder: Path, taesd: AutoencoderTiny, tmp_path: Path) -> None:
    """As in SDXS."""
    folder = shutil.copytree(first_folder, tmp_path / "sdxs")
    shutil.rmtree(folder / "vae")
    taesd.save_pretrained(folder / "vae")
    assert_holds(load_checkpoint(folder, 64, 128, components=BASE), taesd)


def test_half_of_a_tiny_autoencoder_asks_for_the_other(taesd: AutoencoderTiny, tmp_path: Path) -> None:
    decoder = write_taesd(taesd, tmp_path)
    (tmp_path / "taesd_encoder.safetensors").unlink()
    with pytest.raises(UserError, match=r"got no taesd_encoder\.safetensors beside it, wanted both halves"):
        read_vae(decoder)
    with pytest.raises(UserError, match=r"got half of a tiny autoencoder, wanted taesd_encoder or taesd_decoder"):
        read_vae(decoder.rename(tmp_path / "tiny.safetensors"))


def test_halves_of_different_depth_are_refused(first_folder: Path, tmp_path: Path) -> None:
    other = AutoencoderTiny(
        encoder_block_out_channels=(16,) * 4, decoder_block_out_channels=(16,) * 2, num_decoder_blocks=(3, 1)
    )
    path = write_taesd(randomized(other), tmp_path)
    with pytest.raises(UserError, match="got 4 stages in the encoder, 2 in the decoder, wanted as many"):
        load(first_folder, path)


def test_a_vae_of_another_latent_space_is_refused(first_folder: Path, tmp_path: Path) -> None:
    """TAESD3's, for example."""
    other = AutoencoderTiny(
        encoder_block_out_channels=(16,) * 4, decoder_block_out_channels=(16,) * 4, latent_channels=16
    )
    path = write_taesd(randomized(other), tmp_path)
    with pytest.raises(UserError, match=r"vae .*taesd_decoder\.safetensors: got 16 latent channels, wanted 4"):
        load(first_folder, path)


def test_a_preview_needs_the_decoder_alone(
    first: Tiny, first_folder: Path, taesd: AutoencoderTiny, tmp_path: Path
) -> None:
    decoder = write_taesd(taesd, tmp_path / "taesd")
    (tmp_path / "taesd" / "taesd_encoder.safetensors").unlink()
    checkpoint = load_checkpoint(first_folder, 64, 128, preview_vae=decoder, components=BASE)
    assert checkpoint.components == (*BASE, "preview_decoder")
    assert_holds(checkpoint, first.vae)
    wanted = {key: tensor for key, tensor in taesd.named_parameters() if key.startswith("decoder.")}
    got = {name: tensor for name, tensor in checkpoint.tensors().items() if name.startswith("preview_vae.")}
    assert got.keys() == {f"preview_vae.{key}" for key in wanted}
    for key, tensor in wanted.items():
        assert torch.equal(got[f"preview_vae.{key}"], tensor), key


def test_a_preview_may_have_the_decoder_of_a_whole_vae(
    first_folder: Path, other_vae: AutoencoderKL, taesd: AutoencoderTiny, tmp_path: Path
) -> None:
    taesd.save_pretrained(tmp_path / "taesd")
    original = write(original_vae(other_vae.state_dict()), tmp_path / "vae.ckpt")
    for path, half in ((tmp_path / "taesd", taesd.decoder), (original, other_vae.decoder)):
        checkpoint = load_checkpoint(first_folder, 64, 128, preview_vae=path, components=BASE)
        got = checkpoint.parts["preview_vae"].decoder.state_dict()
        assert all(torch.equal(got[key], tensor) for key, tensor in half.state_dict().items())


def test_a_preview_of_another_latent_space_is_refused(first_folder: Path, tmp_path: Path) -> None:
    other = AutoencoderTiny(
        encoder_block_out_channels=(16,) * 4, decoder_block_out_channels=(16,) * 4, latent_channels=16
    )
    path = write_taesd(randomized(other), tmp_path)
    with pytest.raises(UserError, match=r"preview_vae .*: got 16 latent channels, wanted 4, those of the model's VAE"):
        load_checkpoint(first_folder, 64, 128, preview_vae=path, components=BASE)


def test_a_tensor_that_is_missing_from_a_half_is_named(
    first_folder: Path, taesd: AutoencoderTiny, tmp_path: Path
) -> None:
    path = write_taesd(taesd, tmp_path)
    tensors = {key: tensor for key, tensor in load_file(path).items() if key != "3.conv.0.bias"}
    with pytest.raises(UserError, match=r"lacks 1 tensor\(s\) \(decoder\.layers\.2\.conv\.0\.bias\)"):
        load(first_folder, write(tensors, path))


def test_a_file_without_a_vae_says_what_it_lacks(first: Tiny, tmp_path: Path) -> None:
    path = write(first.original_controlnet(), tmp_path / "canny.safetensors")
    with pytest.raises(UserError, match=r"vae .*canny\.safetensors: got no VAE: \d+ tensors, none of them encoder"):
        read_vae(path)
    unet = {key: tensor for key, tensor in first.original().items() if key.startswith("model.diffusion_model.")}
    with pytest.raises(UserError, match="got a model without a VAE"):
        read_vae(write(unet, tmp_path / "unet.safetensors"))
