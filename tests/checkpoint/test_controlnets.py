"""Several ControlNets beside one base model."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, MultiControlNetModel

from mlc_controlnet.checkpoint import Checkpoint, load_added_controlnets, load_checkpoint
from mlc_controlnet.errors import UserError
from tests.checkpoint.conftest import Tiny
from tests.fixtures.random_model import random_controlnet

CONTROLS = ("control_embedding", "controlnet")


@pytest.fixture(scope="module")
def base(first: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first.save_folder(tmp_path_factory.mktemp("base") / "first")


def other(first: Tiny, seed: int = 1, **options: object) -> ControlNetModel:
    return random_controlnet(first.controlnet, seed, options)


def load(base: Path, first: Tiny, folder: Path, **options: object) -> Checkpoint:
    """The base's own ControlNet and one that differs in `options`."""
    first.controlnet.save_pretrained(folder / "canny")
    other(first, **options).save_pretrained(folder / "depth")
    return load_checkpoint(
        base, 64, 128, controlnets={name: folder / name for name in ("canny", "depth")}, components=CONTROLS
    )


def assert_holds(checkpoint: Checkpoint, part: str, module: ControlNetModel) -> None:
    got = dict(checkpoint.parts[part].named_parameters())
    wanted = dict(module.named_parameters())
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[key], wanted[key].half()) for key in wanted)


def test_each_controlnet_is_a_part_and_two_components(base: Path, first: Tiny, tmp_path: Path) -> None:
    checkpoint = load(base, first, tmp_path)
    assert tuple(checkpoint.controlnets.items()) == (("canny", "canny"), ("depth", "depth"))
    assert checkpoint.components == ("control_embedding", "controlnet", "control_embedding_2", "controlnet_2")
    assert_holds(checkpoint, "controlnet", first.controlnet)
    assert_holds(checkpoint, "controlnet_2", other(first))
    assert {"controlnet_2.conv_in.weight", "controlnet.conv_in.weight"} <= checkpoint.tensors().keys()


@pytest.mark.parametrize(
    ("options", "embedding", "controlnet"),
    [
        ({}, "control_embedding", "controlnet"),
        ({"upcast_attention": True}, "control_embedding", "controlnet"),  # changes nothing here
        ({"controlnet_conditioning_channel_order": "bgr"}, "control_embedding_2", "controlnet"),
        ({"global_pool_conditions": True}, "control_embedding", "controlnet_2"),
        ({"norm_eps": 1e-6}, "control_embedding", "controlnet_2"),
    ],
)
def test_controlnets_of_one_graph_share_functions(
    base: Path, first: Tiny, tmp_path: Path, options: dict[str, object], embedding: str, controlnet: str
) -> None:
    functions = load(base, first, tmp_path, **options).functions
    assert (functions["control_embedding_2"], functions["controlnet_2"]) == (embedding, controlnet)
    assert (functions["control_embedding"], functions["controlnet"]) == CONTROLS


def test_a_folder_of_diffusers_with_several_loads_all(base: Path, first: Tiny, tmp_path: Path) -> None:
    nets = [first.controlnet, other(first), other(first, 2)]
    nets[1].register_to_config(_name_or_path="lllyasviel/sd-controlnet-depth")
    MultiControlNetModel(nets).save_pretrained(str(tmp_path / "pipeline" / "controlnet"))
    checkpoint = load_checkpoint(base, 64, 128, controlnets={"mine": tmp_path / "pipeline"}, components=CONTROLS)
    assert tuple(checkpoint.controlnets) == ("controlnet", "depth", "controlnet_2")
    for part, module in zip(("controlnet", "controlnet_2", "controlnet_3"), nets, strict=True):
        assert_holds(checkpoint, part, module)


def test_a_model_with_several_loads_all(first: Tiny, tmp_path: Path) -> None:
    folder = first.save_folder(tmp_path / "model")
    MultiControlNetModel([first.controlnet, other(first)]).save_pretrained(str(folder / "controlnet"))
    checkpoint = load_checkpoint(folder, 64, 128, components=CONTROLS)
    assert tuple(checkpoint.controlnets) == ("controlnet", "controlnet_2")
    assert_holds(checkpoint, "controlnet_2", other(first))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"layers_per_block": 1}, r"layers per block 1, wanted 2, as the base model has"),
        ({"conditioning_channels": 6}, r"conditioning_channels: got 6, which needs a control image that is not RGB"),
    ],
)
def test_a_controlnet_for_a_compiled_base_is_checked_by_its_shapes(
    base: Path, first: Tiny, tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    checkpoint = load(base, first, tmp_path)
    shapes, defaults = [checkpoint.shape], checkpoint.defaults
    added = load_added_controlnets({"more": tmp_path / "depth"}, ["canny"], shapes, defaults, "base")
    assert added.components == ("control_embedding_2", "controlnet_2")
    assert (list(added.controlnets), list(added.parts)) == (["canny", "more"], ["controlnet_2"])
    assert_holds(added, "controlnet_2", other(first))
    config = tmp_path / "depth" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(UserError, match=complaint):
        load_added_controlnets({"more": tmp_path / "depth"}, ["canny"], shapes, defaults, "base")


def test_every_controlnet_that_does_not_fit_is_named(base: Path, first: Tiny, tmp_path: Path) -> None:
    for name, change in (("a", {"layers_per_block": 1}), ("b", {}), ("c", {"cross_attention_dim": 1024})):
        first.controlnet.save_pretrained(tmp_path / name)
        config = tmp_path / name / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(UserError) as error:
        load_checkpoint(base, controlnets={name: tmp_path / name for name in "abc"})
    assert str(error.value).startswith(f"controlnet {tmp_path / 'a'}: got layers per block 1, wanted 2, as the base")
    assert f"; {tmp_path / 'c'}: text width 1024 (Stable Diffusion 2.x), not 128; take ControlNets" in str(error.value)
    assert str(tmp_path / "b") not in str(error.value)
