"""Weights in shards: diffusers writes them for large parts, and for any part if it is asked to."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mlc_controlnet.checkpoint import load_checkpoint
from mlc_controlnet.checkpoint.sharded import read_shard_names
from mlc_controlnet.errors import UserError
from tests.checkpoint.conftest import Tiny

BASE = ("text_encoder", "unet", "vae_decoder", "vae_encoder")


@pytest.fixture
def folder(first: Tiny, tmp_path: Path) -> Path:
    """A model whose UNet lies in several files."""
    first.save_folder(tmp_path / "model")
    (tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    first.unet.save_pretrained(tmp_path / "model" / "unet", max_shard_size="1MB")
    return tmp_path / "model"


def index_of(folder: Path) -> Path:
    return folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"


def assert_holds_unet(folder: Path, first: Tiny) -> None:
    got = load_checkpoint(folder, components=BASE).parts["unet"].state_dict()
    assert got.keys() == first.unet.state_dict().keys()
    assert all(torch.equal(tensor, first.unet.state_dict()[key]) for key, tensor in got.items())


def test_safetensors_shards_are_read(first: Tiny, folder: Path) -> None:
    assert len(read_shard_names(index_of(folder))) > 1
    assert_holds_unet(folder, first)


def test_torch_shards_are_read(first: Tiny, folder: Path) -> None:
    unet = folder / "unet"
    for file in unet.glob("*.safetensors*"):
        file.unlink()
    weights = first.unet.state_dict()
    middle = len(weights) // 2
    names = ["diffusion_pytorch_model-00001-of-00002.bin", "diffusion_pytorch_model-00002-of-00002.bin"]
    weight_map = {}
    for name, keys in zip(names, (list(weights)[:middle], list(weights)[middle:]), strict=True):
        torch.save({key: weights[key] for key in keys}, unet / name)
        weight_map |= dict.fromkeys(keys, name)
    (unet / "diffusion_pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert_holds_unet(folder, first)


def test_a_missing_shard_is_named(folder: Path) -> None:
    *_, last = read_shard_names(index_of(folder))
    (folder / "unet" / last).unlink()
    with pytest.raises(UserError, match=rf"index\.json: got \d+ of \d+ shards, without {last}"):
        load_checkpoint(folder, components=BASE)


def test_a_tensor_that_its_shard_lacks_is_named(folder: Path) -> None:
    content = json.loads(index_of(folder).read_text())
    first_shard, *_ = content["weight_map"].values()
    content["weight_map"]["conv_in.scale"] = first_shard
    index_of(folder).write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{first_shard}: got no tensor conv_in\.scale"):
        load_checkpoint(folder, components=BASE)


@pytest.mark.parametrize("name", ["../../secret.bin", "/etc/passwd", "a\\b.bin", 3])
def test_an_index_names_only_files_of_its_folder(folder: Path, name: object) -> None:
    index_of(folder).write_text(json.dumps({"weight_map": {"conv_in.weight": name}}))
    with pytest.raises(UserError, match="wanted the name of a file in the same folder"):
        load_checkpoint(folder, components=BASE)


def test_an_index_without_a_map_is_refused(folder: Path) -> None:
    index_of(folder).write_text("{}")
    with pytest.raises(UserError, match="got no weight_map"):
        load_checkpoint(folder, components=BASE)


@pytest.mark.parametrize("left", [0, 1])
def test_weights_in_one_file_are_read_in_the_place_of_shards_that_are_not_there(
    first: Tiny, folder: Path, capsys: pytest.CaptureFixture[str], left: int
) -> None:
    """Whoever downloads only the .json and the .fp16. files of a model gets the index of the others."""
    for shard in read_shard_names(index_of(folder))[left:]:
        (folder / "unet" / shard).unlink()
    first.unet.save_pretrained(folder / "unet", variant="fp16")
    assert_holds_unet(folder, first)
    assert "so diffusion_pytorch_model.fp16.safetensors is read" in capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_the_prefixes_of_compiled_and_distributed_modules_are_dropped(first: Tiny, folder: Path, prefix: str) -> None:
    index = json.loads(index_of(folder).read_text())
    for shard in read_shard_names(index_of(folder)):
        tensors = load_file(folder / "unet" / shard)
        save_file({prefix + key: tensor for key, tensor in tensors.items()}, folder / "unet" / shard)
    index["weight_map"] = {prefix + key: shard for key, shard in index["weight_map"].items()}
    index_of(folder).write_text(json.dumps(index))
    assert_holds_unet(folder, first)
