"""LoRA files merged into the weights: W + weight * alpha / r * up @ down, and nothing else."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mlc_controlnet.checkpoint import Checkpoint, load_checkpoint
from mlc_controlnet.checkpoint.ldm_names import original_unet_module
from mlc_controlnet.config import LoraOption
from mlc_controlnet.errors import UserError
from tests.checkpoint.conftest import Tiny
from tests.checkpoint.original_layout import original_unet

TO_K = "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k"
TO_OUT = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
CONV = "up_blocks.2.resnets.1.conv1"  # 3x3
PROJ_IN = "down_blocks.0.attentions.0.proj_in"  # 1x1
Q_PROJ = "encoder.layers.1.self_attn.q_proj"
LAYERS = {"unet": (TO_K, TO_OUT, CONV, PROJ_IN), "text_encoder": (Q_PROJ,)}
RANK, ALPHA = 4, 2.0
BASE = ("text_encoder", "unet", "vae_decoder", "vae_encoder")

Factors = dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module")
def folder(first: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first.save_folder(tmp_path_factory.mktemp("base") / "first")


@pytest.fixture(scope="module")
def factors(first: Tiny) -> Factors:
    """(part, layer) -> up, down, as convolutions where the layer is one."""
    generator = torch.Generator().manual_seed(3)
    result = {}
    for part, names in LAYERS.items():
        for name in names:
            weight = getattr(first, part).get_submodule(name).weight
            kernel = weight.shape[2:]
            up = torch.randn(weight.shape[0], RANK, *(1 for _ in kernel), generator=generator)
            result[part, name] = up, torch.randn(RANK, weight.shape[1], *kernel, generator=generator)
    return result


def kohya(factors: Factors) -> dict[str, torch.Tensor]:
    result = {}
    for (part, name), (up, down) in factors.items():
        prefix = "lora_unet_" if part == "unet" else "lora_te_text_model_"
        stem = prefix + name.replace(".", "_")
        result |= {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down, f"{stem}.alpha": torch.tensor(ALPHA)}
    return result


def peft(factors: Factors) -> dict[str, torch.Tensor]:
    result = {}
    for (part, name), (up, down) in factors.items():
        stem = f"unet.{name}" if part == "unet" else f"text_encoder.text_model.{name}"
        result |= {f"{stem}.lora_B.weight": up, f"{stem}.lora_A.weight": down}
    return result


def assert_merged(checkpoint: Checkpoint, first: Tiny, factors: Factors, scale: float) -> None:
    for part in LAYERS:
        for key, base in getattr(first, part).named_parameters():
            name = key.removesuffix(".weight")
            wanted = base.double()
            if (part, name) in factors:
                up, down = (factor.double() for factor in factors[part, name])
                wanted = wanted + scale * torch.einsum("or,r...->o...", up.flatten(1), down)
            got = checkpoint.parts[part].get_parameter(key)
            # The sum is made in float32 and rounded to float16 once.
            assert torch.allclose(got.double(), wanted, rtol=2**-11 * 1.01, atol=2e-6), f"{part}.{key}"
            assert (part, name) in factors or torch.equal(got, base.half())


def test_kohyas_names(first: Tiny, folder: Path, factors: Factors, tmp_path: Path) -> None:
    save_file(kohya(factors), tmp_path / "style.safetensors")
    loras = [LoraOption(str(tmp_path / "style.safetensors"), 0.6)]
    assert_merged(load_checkpoint(folder, components=BASE, loras=loras), first, factors, 0.6 * ALPHA / RANK)


def test_peft_names_without_alpha_have_the_weight_alone(
    first: Tiny, folder: Path, factors: Factors, tmp_path: Path
) -> None:
    save_file(peft(factors), tmp_path / "style.safetensors")
    loras = [LoraOption(str(tmp_path / "style.safetensors"), 1.0)]
    assert_merged(load_checkpoint(folder, components=BASE, loras=loras), first, factors, 1.0)


def test_pefts_alpha_is_read_from_the_header(first: Tiny, folder: Path, factors: Factors, tmp_path: Path) -> None:
    stated = {f"{part}.{key}": value for part in LAYERS for key, value in (("lora_alpha", 8), ("r", RANK))}
    metadata = {"lora_adapter_metadata": json.dumps(stated)}
    save_file(peft(factors), tmp_path / "style.safetensors", metadata=metadata)
    loras = [LoraOption(str(tmp_path / "style.safetensors"), 1.0)]
    assert_merged(load_checkpoint(folder, components=BASE, loras=loras), first, factors, 8 / RANK)


def bare(factors: Factors) -> dict[str, torch.Tensor]:
    """A file for the UNet alone, of 2023: attention processors, without the part's name."""
    result = {}
    for (_, name), (up, down) in factors.items():
        attention, projection = name.removesuffix(".0").rsplit(".", 1)
        stem = f"{attention}.processor.{projection}_lora"
        result |= {f"{stem}.up.weight": up, f"{stem}.down.weight": down}
    return result


def peft_adapter(factors: Factors) -> dict[str, torch.Tensor]:
    """As peft's state_dict has it, with the adapter's name."""
    return {key.replace(".weight", ".default.weight"): tensor for key, tensor in peft(factors).items()}


def original_blocks(factors: Factors) -> dict[str, torch.Tensor]:
    """kohya's names, with the original code's numbers of blocks."""
    result = {}
    for (_, name), (up, down) in factors.items():
        (original,) = original_unet({f"{name}.weight": up})
        stem = "lora_unet_" + original.removesuffix(".weight").replace(".", "_")
        result |= {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down}
    return result


@pytest.mark.parametrize(
    ("spell", "layers"),
    [(bare, (TO_K, TO_OUT)), (peft_adapter, LAYERS["unet"]), (original_blocks, LAYERS["unet"])],
    ids=["bare", "peft_adapter", "original_blocks"],
)
def test_every_spelling_of_the_unets_layers_is_merged(
    first: Tiny,
    folder: Path,
    factors: Factors,
    tmp_path: Path,
    spell: Callable[[Factors], dict[str, torch.Tensor]],
    layers: Sequence[str],
) -> None:
    spelled = {("unet", layer): factors["unet", layer] for layer in layers}
    save_file(spell(spelled), tmp_path / "style.safetensors")
    loras = [LoraOption(str(tmp_path / "style.safetensors"), 1.0)]
    assert_merged(load_checkpoint(folder, components=BASE, loras=loras), first, spelled, 1.0)


def test_the_text_encoders_old_projections_are_merged(
    first: Tiny, folder: Path, factors: Factors, tmp_path: Path
) -> None:
    up, down = factors["text_encoder", Q_PROJ]
    stem = f"text_encoder.text_model.{Q_PROJ.replace('q_proj', 'to_q')}_lora"
    save_file({f"{stem}.up.weight": up, f"{stem}.down.weight": down}, tmp_path / "style.safetensors")
    loras = [LoraOption(str(tmp_path / "style.safetensors"), 1.0)]
    merged = {("text_encoder", Q_PROJ): (up, down)}
    assert_merged(load_checkpoint(folder, components=BASE, loras=loras), first, merged, 1.0)


@pytest.mark.parametrize("is_second", [False, True])
def test_every_layer_of_the_unet_has_the_original_codes_name(first: Tiny, second: Tiny, is_second: bool) -> None:
    unet = second.unet if is_second else first.unet
    for name, module in unet.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            block = unet.get_submodule(".".join(name.split(".")[:2]))
            (wanted,) = original_unet({f"{name}.weight": module.weight})
            got = original_unet_module(name, unet.config.layers_per_block, hasattr(block, "attentions"))
            assert f"{got}.weight" == wanted


@pytest.mark.parametrize("style", ["{attention}.processor.{projection}_lora.{end}", "{layer}.lora.{end}"])
def test_names_of_older_diffusers(first: Tiny, folder: Path, factors: Factors, tmp_path: Path, style: str) -> None:
    up, down = factors["unet", TO_OUT]
    attention, projection = TO_OUT.removesuffix(".0").rsplit(".", 1)
    names = {"attention": f"unet.{attention}", "projection": projection, "layer": f"unet.{TO_OUT}"}
    tensors = {style.format(**names, end=f"{end}.weight"): tensor for end, tensor in (("up", up), ("down", down))}
    save_file(tensors, tmp_path / "old.safetensors")
    loras = [LoraOption(str(tmp_path / "old.safetensors"), 1.0)]
    got = load_checkpoint(folder, components=BASE, loras=loras)
    assert_merged(got, first, {("unet", TO_OUT): (up, down)}, 1.0)


def test_two_loras_add_up(first: Tiny, folder: Path, factors: Factors, tmp_path: Path) -> None:
    save_file(peft(factors), tmp_path / "a.safetensors")
    save_file(kohya(factors), tmp_path / "b.safetensors")
    loras = [LoraOption(str(tmp_path / "a.safetensors"), -0.5), LoraOption(str(tmp_path / "b.safetensors"), 2.0)]
    assert_merged(load_checkpoint(folder, components=BASE, loras=loras), first, factors, -0.5 + 2.0 * ALPHA / RANK)


def test_a_lora_is_merged_into_one_component_alone(first: Tiny, folder: Path, factors: Factors, tmp_path: Path) -> None:
    save_file(kohya(factors), tmp_path / "style.safetensors")
    loras = [LoraOption(str(tmp_path / "style.safetensors"), 1.0)]
    checkpoint = load_checkpoint(folder, components=["text_encoder"], loras=loras)
    assert "unet" not in checkpoint.parts
    got = checkpoint.parts["text_encoder"].get_submodule(Q_PROJ).weight
    assert not torch.equal(got, first.text_encoder.get_submodule(Q_PROJ).weight.float())


def refused(folder: Path, path: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> str:
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(UserError) as error:
        load_checkpoint(folder, components=BASE, loras=[LoraOption(str(path), 1.0)])
    return str(error.value)


def test_a_lora_of_another_text_width_is_refused_by_name(folder: Path, factors: Factors, tmp_path: Path) -> None:
    up, _ = factors["unet", TO_K]
    tensors = kohya({("unet", TO_K): (up, torch.zeros(RANK, 1024))})
    said = refused(folder, tmp_path / "sd2.safetensors", tensors, ss_base_model_version="sd_v2_768_v")
    assert f"sd2.safetensors: unet.{TO_K}.weight: got up [32, 4] and down [4, 1024]" in said
    assert "trained for sd_v2_768_v" in said
    assert "wanted [32, r] and [r, 128]" in said


def test_a_lora_with_layers_of_another_model_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    name = "lora_te2_text_model_encoder_layers_31_mlp_fc1"
    tensors = {f"{name}.lora_up.weight": torch.zeros(8, 4), f"{name}.lora_down.weight": torch.zeros(4, 8)}
    assert f"{name}.lora_up.weight" in refused(folder, tmp_path / "sdxl.safetensors", tensors)


@pytest.mark.parametrize("factor", ["oft_blocks", "diff", "on_input"])
def test_other_kinds_of_adapters_are_refused(folder: Path, factors: Factors, tmp_path: Path, factor: str) -> None:
    other = {**kohya(factors), f"lora_unet_mid_block_attentions_0_proj_in.{factor}": torch.ones(1)}
    said = refused(folder, tmp_path / "other.safetensors", other)
    assert f"proj_in.{factor}) for which this model has no layer" in said
    assert "wanted the factors of a LoRA, LoHa, LoKr or DoRA of this base model" in said


def test_half_a_pair_is_refused(folder: Path, factors: Factors, tmp_path: Path) -> None:
    tensors = kohya({("unet", TO_K): factors["unet", TO_K]})
    del tensors[next(key for key in tensors if "lora_up" in key)]
    assert "got down only, wanted up and down" in refused(folder, tmp_path / "half.safetensors", tensors)


def test_a_lora_that_is_not_a_number_is_named(folder: Path, factors: Factors, tmp_path: Path) -> None:
    up, down = factors["unet", TO_K]
    tensors = kohya({("unet", TO_K): (up * torch.nan, down)})
    assert f"unet.{TO_K}.weight: up: got NaN" in refused(folder, tmp_path / "nan.safetensors", tensors)
