"""LoHa, LoKr and DoRA files, and several files with a weight for each part, loaded with a model."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mlc_controlnet.checkpoint import load_checkpoint
from mlc_controlnet.checkpoint.lora import read_loras
from mlc_controlnet.config import LoraOption
from mlc_controlnet.errors import UserError
from tests.checkpoint.conftest import Tiny
from tests.checkpoint.lycoris import CONVOLUTIONS_ALONE, EVERYWHERE, RANK, Tensors, dora
from tests.checkpoint.original_layout import original_unet

TO_K = "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k"
FF = "up_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj"
CONV = "up_blocks.2.resnets.1.conv1"  # 3x3, twice as many inputs as outputs
DOWN = "down_blocks.1.downsamplers.0.conv"  # 3x3, square
PROJ_IN = "down_blocks.0.attentions.0.proj_in"  # 1x1
FC1 = "encoder.layers.1.mlp.fc1"
BASE = ("text_encoder", "unet")
ALPHA = 2.0

Differences = dict[str, torch.Tensor]  # tensor's name -> what is added, float64


def weight_of(first: Tiny, name: str) -> torch.Tensor:
    part, _, key = name.partition(".")
    return getattr(first, part).get_parameter(key)


def make(first: Tiny, kind: str, name: str) -> tuple[Tensors, torch.Tensor]:
    """Factors that are as small as trained ones, and their difference."""
    factors, difference = {**EVERYWHERE, **CONVOLUTIONS_ALONE}[kind](weight_of(first, name).shape)
    small = 0.5 ** (len(factors) + 1)
    role = max(key for key in factors if "w1" in key or "up" in key)  # the difference is linear in each of them
    return {**factors, role: small * factors[role]}, small * difference


def kohya(name: str) -> str:
    part, _, key = name.removesuffix(".weight").partition(".")
    return {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}[part] + key.replace(".", "_")


def under(stem: str, factors: Mapping[str, torch.Tensor]) -> Tensors:
    return {f"{stem}.{role}": factor.contiguous() for role, factor in factors.items()}


def assert_merged(first: Tiny, wanted: Differences, *loras: LoraOption) -> None:
    """The files change the tensors named in `wanted` to these values, and no others."""
    updates = read_loras(loras, {part: getattr(first, part) for part in BASE})
    assert updates.keys() == wanted.keys()
    for name, value in wanted.items():
        got = base = weight_of(first, name)
        for update in updates[name]:
            got = update.applied_to(got)
        assert torch.allclose(got.double(), value, rtol=1e-5, atol=1e-6), name
        assert not torch.allclose(got, base.float(), rtol=1e-2), name


@pytest.mark.parametrize("kind", [*EVERYWHERE, *CONVOLUTIONS_ALONE])
def test_a_file_of_each_kind_is_merged(first: Tiny, tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    names = [f"unet.{layer}.weight" for layer in (CONV, DOWN)]
    if kind in EVERYWHERE:
        names += [f"unet.{layer}.weight" for layer in (TO_K, FF, PROJ_IN)] + [f"text_encoder.{FC1}.weight"]
    tensors, wanted = {}, {}
    for name in names:
        factors, difference = make(first, kind, name)
        tensors |= under(kohya(name), {**factors, "alpha": torch.tensor(ALPHA)})
        scale = 1.0 if kind == "lokr_whole" else ALPHA / RANK  # two whole matrices ignore alpha, as LyCORIS does
        wanted[name] = weight_of(first, name).double() + 0.5 * scale * difference
    save_file(tensors, tmp_path / "style.safetensors")
    assert_merged(first, wanted, LoraOption(str(tmp_path / "style.safetensors"), 0.5))


SPELLINGS = {
    "kohya": "lora_unet_{flat}.{role}",
    "kohya's with the original blocks": "lora_unet_{flat_original}.{role}",
    "LyCORIS'": "lycoris_{flat}.{role}",
    "ComfyUI's": "diffusion_model.{original}.{role}",
    "diffusers'": "unet.{layer}.{role}",
    "peft's": "base_model.model.{layer}.{role}",
    "peft's with the adapter's name": "base_model.model.{layer}.{role}.default",
    "the layer's alone": "{layer}.{role}",
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("kind", ["loha", "lokr_both"])
def test_every_spelling_of_a_layer_is_merged(first: Tiny, tmp_path: Path, kind: str, spelling: str) -> None:
    torch.manual_seed(1)
    tensors, wanted = {}, {}
    for layer in (TO_K, CONV):
        factors, difference = make(first, kind, f"unet.{layer}.weight")
        (original,) = (key.removesuffix(".weight") for key in original_unet({f"{layer}.weight": torch.zeros(1)}))
        names = {"layer": layer, "original": original}
        flat = {"flat": layer.replace(".", "_"), "flat_original": original.replace(".", "_")}
        tensors |= {spelling.format(role=role, **names, **flat): factor for role, factor in factors.items()}
        wanted[f"unet.{layer}.weight"] = weight_of(first, f"unet.{layer}.weight").double() + difference
    save_file(tensors, tmp_path / "style.safetensors")
    assert_merged(first, wanted, LoraOption(str(tmp_path / "style.safetensors")))


@pytest.mark.parametrize(("kind", "options", "scale"), [
    ("loha", {"alpha": 8, "r": RANK}, 8 / RANK),
    ("lokr_whole", {"alpha": 8, "r": 16}, 0.5),
    ("lora", {"lora_alpha": 8, "r": RANK, "use_rslora": True}, 8 / RANK**0.5),
])  # fmt: skip
def test_pefts_header_has_the_scale(
    first: Tiny, tmp_path: Path, kind: str, options: Mapping[str, object], scale: float
) -> None:
    torch.manual_seed(2)
    name = f"unet.{CONV}.weight"
    factors, difference = make(first, kind, name)
    stated = json.dumps({f"unet.{option}": value for option, value in options.items()})
    path = tmp_path / "style.safetensors"
    save_file(under(f"unet.{CONV}", factors), path, metadata={"lora_adapter_metadata": stated})
    wanted = {name: weight_of(first, name).double() + scale * difference}
    assert_merged(first, wanted, LoraOption(str(path)))


def test_pefts_folder_has_the_scale_beside_the_file(first: Tiny, tmp_path: Path) -> None:
    torch.manual_seed(2)
    options = {"alpha": 8, "r": RANK, "alpha_pattern": {r"up_blocks\..*conv1": 2}}
    tensors, wanted = {}, {}
    for layer, alpha in ((CONV, 2), (DOWN, 8)):
        name = f"unet.{layer}.weight"
        factors, difference = make(first, "loha", name)
        tensors |= under(f"base_model.model.{layer}", factors)
        wanted[name] = weight_of(first, name).double() + alpha / RANK * difference
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(options))
    assert_merged(first, wanted, LoraOption(str(tmp_path)))


def norms_of(weight: torch.Tensor, axis: int) -> torch.Tensor:
    """The norms that training starts from, changed by up to a third, as [out, 1, ...] or [1, in, ...]."""
    others = [at for at in range(weight.ndim) if at != axis]
    norms = weight.float().square().sum(dim=others, keepdim=True).sqrt()
    return norms * (1 + (torch.rand(norms.shape) - 0.5) / 1.5)


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr_half"])
@pytest.mark.parametrize("axis", [0, 1])
def test_dora_is_merged_along_the_axis_that_its_shape_shows(first: Tiny, tmp_path: Path, kind: str, axis: int) -> None:
    torch.manual_seed(3)
    tensors, wanted = {}, {}
    for name in (*(f"unet.{layer}.weight" for layer in (TO_K, CONV, DOWN, PROJ_IN)), f"text_encoder.{FC1}.weight"):
        weight = weight_of(first, name)
        factors, difference = make(first, kind, name)
        norms = norms_of(weight, axis)
        extra = {"alpha": torch.tensor(ALPHA), "dora_scale": norms}
        tensors |= under(kohya(name), {**factors, **extra})
        wanted[name] = dora(weight, ALPHA / RANK * difference, norms)
    save_file(tensors, tmp_path / "dora.safetensors")
    assert_merged(first, wanted, LoraOption(str(tmp_path / "dora.safetensors")))


@pytest.mark.parametrize("ending", ["lora_magnitude_vector", "lora_magnitude_vector.weight", "dora_scale"])
def test_pefts_dora_has_the_norms_of_the_outputs_on_the_second_axis_of_a_convolution(
    first: Tiny, tmp_path: Path, ending: str
) -> None:
    torch.manual_seed(4)
    # Where diffusers writes it under kohya's name, a square convolution would be ambiguous, and is read as LyCORIS'.
    layers = (TO_K, CONV) if ending == "dora_scale" else (TO_K, CONV, DOWN)
    tensors, wanted = {}, {}
    for layer in layers:
        name = f"unet.{layer}.weight"
        weight = weight_of(first, name)
        factors, difference = make(first, "lora", name)
        norms = norms_of(weight, axis=0)
        peft = {"lora_B.weight": factors["lora_up.weight"], "lora_A.weight": factors["lora_down.weight"]}
        stored = norms.transpose(0, 1) if weight.ndim == 4 else norms.flatten()
        tensors |= under(f"unet.{layer}", {**peft, ending: stored})
        wanted[name] = dora(weight, difference, norms)
    save_file(tensors, tmp_path / "dora.safetensors")
    assert_merged(first, wanted, LoraOption(str(tmp_path / "dora.safetensors")))


def test_files_are_merged_in_the_order_of_the_command_line(first: Tiny, tmp_path: Path) -> None:
    torch.manual_seed(5)
    name = f"unet.{CONV}.weight"
    weight = weight_of(first, name)
    (plain, added), (factors, difference) = make(first, "lora", name), make(first, "lora", name)
    norms = norms_of(weight, axis=0)
    save_file(under(kohya(name), plain), tmp_path / "lora.safetensors")
    save_file(under(kohya(name), {**factors, "dora_scale": norms}), tmp_path / "dora.safetensors")
    lora, of_dora = (LoraOption(str(tmp_path / f"{kind}.safetensors")) for kind in ("lora", "dora"))
    dora_last, dora_first = dora(weight.double() + added, difference, norms), dora(weight, difference, norms) + added
    assert not torch.allclose(dora_last, dora_first, rtol=1e-2)
    assert_merged(first, {name: dora_last}, lora, of_dora)
    assert_merged(first, {name: dora_first}, of_dora, lora)


def test_each_part_of_each_file_has_its_weight(first: Tiny, tmp_path: Path) -> None:
    torch.manual_seed(6)
    names = (f"unet.{CONV}.weight", f"text_encoder.{FC1}.weight")
    wanted = {name: weight_of(first, name).double() for name in names}
    options = []
    for kind, end in (("loha", "unet=0.8,text_encoder=0.4"), ("lokr_whole", "unet=-0.5"), ("lora", "0.25")):
        tensors = {}
        path = tmp_path / f"{kind}.safetensors"
        options.append(LoraOption.parse(f"{path}:{end}"))
        for name in names:
            factors, difference = make(first, kind, name)
            tensors |= under(kohya(name), factors)
            wanted[name] += options[-1].weight_of(name.partition(".")[0]) * difference
        save_file(tensors, path)
    assert_merged(first, wanted, *options)


def test_a_part_of_weight_0_stays_as_it_is(first: Tiny, tmp_path: Path) -> None:
    torch.manual_seed(7)
    names = (f"unet.{CONV}.weight", f"text_encoder.{FC1}.weight")
    made = {name: make(first, "lora", name) for name in names}
    save_file({k: v for n in names for k, v in under(kohya(n), made[n][0]).items()}, tmp_path / "style.safetensors")
    wanted = {names[0]: weight_of(first, names[0]).double() + made[names[0]][1]}
    option = LoraOption.parse(f"{tmp_path / 'style.safetensors'}:text_encoder=0")
    assert_merged(first, wanted, option)


def test_a_model_is_loaded_with_files_of_all_kinds(first: Tiny, tmp_path: Path) -> None:
    torch.manual_seed(10)
    names = [f"unet.{layer}.weight" for layer in (CONV, DOWN)] + [f"text_encoder.{FC1}.weight"]
    wanted = {name: weight_of(first, name).double() for name in names}
    options = []
    for kind in ("lora", "loha", "lokr_both", "dora"):
        tensors = {}
        path = tmp_path / f"{kind}.safetensors"
        options.append(LoraOption.parse(f"{path}:unet={1 if kind == 'dora' else 0.5},text_encoder=1"))
        for name in names:
            factors, difference = make(first, "lora" if kind == "dora" else kind, name)
            if kind == "dora":
                factors["dora_scale"] = norms_of(weight_of(first, name), axis=0)
                wanted[name] = dora(wanted[name], difference, factors["dora_scale"])
            else:
                wanted[name] += options[-1].weight_of(name.partition(".")[0]) * difference
            tensors |= under(kohya(name), factors)
        save_file(tensors, path)
    checkpoint = load_checkpoint(first.save_folder(tmp_path / "first"), components=BASE, loras=options)
    for part in BASE:
        for key, got in checkpoint.parts[part].named_parameters():
            base = weight_of(first, f"{part}.{key}")
            if f"{part}.{key}" in wanted:
                # The sums are made in float32 and rounded to float16 once.
                assert torch.allclose(got.double(), wanted[f"{part}.{key}"], rtol=2**-11 * 1.01, atol=2e-6), key
                assert not torch.allclose(got, base, rtol=1e-2), key
            else:
                assert torch.equal(got, base), key


def test_every_layer_that_an_lcm_lora_trains_is_merged(first: Tiny, tmp_path: Path) -> None:
    """latent-consistency/lcm-lora-sdv1-5 has kohya's names of these layers."""
    trained = re.compile(
        r"conv_in|conv_out|.*\.(to_[qkv]|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2|conv1|conv2"
        r"|conv_shortcut|(down|up)samplers\.0\.conv|time_emb_proj|linear_[12])"
    )
    torch.manual_seed(8)
    layers = [name for name, module in first.unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    assert all(map(trained.fullmatch, layers))  # it is every layer that Stable Diffusion 1.5 has
    assert {f"time_embedding.linear_{number}" for number in (1, 2)} < set(layers)
    tensors, wanted = {}, {}
    for layer in layers:
        name = f"unet.{layer}.weight"
        factors, difference = make(first, "lora", name)
        tensors |= under(kohya(name), {**factors, "alpha": torch.tensor(ALPHA)})
        wanted[name] = weight_of(first, name).double() + ALPHA / RANK * difference
    save_file(tensors, tmp_path / "pytorch_lora_weights.safetensors")
    assert_merged(first, wanted, LoraOption(str(tmp_path / "pytorch_lora_weights.safetensors")))


@pytest.mark.parametrize(
    ("kind", "change", "complaint"),
    [
        ("loha", {"hada_w2_b": None}, "got hada_w1_a, hada_w1_b, hada_w2_a only, wanted hada_w1_a and hada_w1_b and"),
        ("loha", {"hada_w2_b": (RANK, 7)}, "for a weight of [32, 128]; take a LoRA that was trained for this base"),
        ("loha", {"hada_t1": (RANK, RANK, 3, 3)}, "hada_w2_b only, wanted"),
        ("lokr_half", {"lokr_w2_a": (5, RANK)}, "lokr_w1 [4, 4] and lokr_w2_a [5, 3] and lokr_w2_b [3, 32], wanted"),
        ("lokr_half", {"lokr_w2_a": None}, "got lokr_w1, lokr_w2_b only, wanted lokr_w1 and lokr_w2_a and lokr_w2_b"),
        ("lokr_whole", {"lokr_w1_a": (4, 2)}, "got lokr_w1, lokr_w1_a, lokr_w2, wanted lokr_w1 and lokr_w2"),
        ("lora", {"hada_w1_a": (32, RANK)}, "down, hada_w1_a, up only, wanted hada_w1_a"),
        ("lora", {"dora_scale": (7, 1)}, "dora_scale: got [7, 1], wanted [32, 1] or [1, 128], one norm each"),
        ("lora", {"lora_magnitude_vector": (128,)}, "lora_magnitude_vector: got [128], wanted [32, 1]"),
        (
            "lora",
            {"lora_up.weight": None, "lora_down.weight": None, "alpha": (1,)},
            "got no factor, wanted up and down",
        ),
        ("lora", {"alpha": (2,)}, "alpha: got 2 numbers, wanted one"),
        ("lora", {"lora_up.weight": (32, 0), "lora_down.weight": (0, 128)}, "got up [32, 0] and down [0, 128]"),
        ("lora", {"lora_up.weight": (32,)}, "got up [32] and down [3, 128]"),
    ],
)
def test_factors_that_make_no_weight_are_refused_by_name(
    first: Tiny, tmp_path: Path, kind: str, change: Mapping[str, tuple[int, ...] | None], complaint: str
) -> None:
    torch.manual_seed(9)
    factors, _ = make(first, kind, f"unet.{TO_K}.weight")
    changed = {**factors, **{role: shape and torch.ones(shape) for role, shape in change.items()}}
    left = {role: factor for role, factor in changed.items() if factor is not None}
    path = tmp_path / "bad.safetensors"
    save_file(under(kohya(f"unet.{TO_K}.weight"), left), path)
    with pytest.raises(UserError) as error:
        read_loras([LoraOption(str(path))], {part: getattr(first, part) for part in BASE})
    assert str(error.value).startswith(f"--lora {path}: unet.{TO_K}.weight")
    assert complaint in str(error.value)
