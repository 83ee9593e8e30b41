"""Union ControlNets: each control type is a ControlNet that computes what diffusers' ControlNetUnionModel does."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mlc_controlnet.capture import build_references, example_inputs
from mlc_controlnet.checkpoint import Checkpoint, load_added_controlnets, load_checkpoint
from mlc_controlnet.checkpoint.controlnet import read_controlnet
from mlc_controlnet.checkpoint.load_part import load_part
from mlc_controlnet.errors import UserError
from mlc_controlnet.parity.parity import signal_to_noise_db
from tests.checkpoint.conftest import Tiny
from tests.fixtures.shared_build import BuildOnce
from tests.fixtures.union_controlnet import PROMAX, UNION, build_union

CONTROLS = ("control_embedding", "controlnet")
SAME_DB = 70.0  # the bias that holds a control type is rounded to float16
HEIGHT, WIDTH = 64, 96
KNOWN = "openpose, depth, scribble, softedge, canny, lineart, lineart_anime, mlsd, normalbae, seg"
NUMBERS = {"depth": 1, "canny": 3, "tile": 6, "inpaint": 7}
FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def unions(build_once: BuildOnce) -> Path:
    """A folder with the ControlNets union and promax, float16."""

    def save(folder: Path) -> None:
        for name, types in (("union", UNION), ("promax", PROMAX)):
            build_union(types).save_pretrained(folder / name)

    return build_once("unions", save)


def load(base: Path, types: dict[str, Path]) -> Checkpoint:
    """Load ControlNets that are named after their control types."""
    chosen = {name: name for name in types}
    return load_checkpoint(base, HEIGHT, WIDTH, controlnets=types, control_types=chosen, components=CONTROLS)


@torch.no_grad()
def residuals(checkpoint: Checkpoint, number: str, contexts: int) -> list[list[np.ndarray]]:
    """Of the ControlNet with this suffix, for each of so many contexts, which it reads one by one."""
    modules = build_references(checkpoint)
    (image,) = example_inputs(checkpoint.specs[f"control_embedding{number}"], "float32")
    embedding = modules[f"control_embedding{number}"](image)
    found = []
    for shift in range(contexts):
        sample, timestep, context, embeds, ids, _, scales = example_inputs(checkpoint.specs["controlnet"], "float32")
        inputs = (sample, timestep, context.roll(shift, 1), embeds, ids, embedding, scales)
        found.append([residual.numpy() for residual in modules[f"controlnet{number}"](*inputs)])
    return found


@torch.no_grad()
def residuals_by_diffusers(checkpoint: Checkpoint, types: int, number: int, contexts: int) -> list[list[np.ndarray]]:
    """The same, with all contexts in one batch."""
    model = build_union(types).float()
    (image,) = example_inputs(checkpoint.specs["control_embedding"], "float32")
    sample, timestep, context, embeds, ids, _, scales = example_inputs(checkpoint.specs["controlnet"], "float32")
    down, mid = model(
        sample.expand(contexts, -1, -1, -1),
        timestep,
        torch.cat([context.roll(shift, 1) for shift in range(contexts)]),
        [image.expand(contexts, -1, -1, -1)],
        torch.eye(types)[number].expand(contexts, -1),
        [number],
        added_cond_kwargs={"text_embeds": embeds.expand(contexts, -1), "time_ids": ids.expand(contexts, -1)},
        return_dict=False,
    )
    scaled = [residual * scale for residual, scale in zip((*down, mid), scales, strict=True)]
    return [[residual[i : i + 1].numpy() for residual in scaled] for i in range(contexts)]


def worst_db(wanted: list[list[np.ndarray]], got: list[list[np.ndarray]]) -> float:
    pairs = zip(itertools.chain(*wanted), itertools.chain(*got), strict=True)
    return min(signal_to_noise_db(reference, residual) for reference, residual in pairs)


@pytest.mark.parametrize(("name", "types"), [("union", ("canny", "depth")), ("promax", ("tile", "inpaint"))])
def test_a_control_type_computes_what_diffusers_computes(
    xl_folder: Path, unions: Path, name: str, types: tuple[str, str]
) -> None:
    """Both halves of guidance too, which diffusers has in one batch, where its attention is across them."""
    checkpoint = load(xl_folder, dict.fromkeys(types, unions / name))
    count = UNION if name == "union" else PROMAX
    wanted = [residuals_by_diffusers(checkpoint, count, NUMBERS[control_type], 2) for control_type in types]
    got = [residuals(checkpoint, number, 2) for number in ("", "_2")]
    assert min(worst_db(w, g) for w, g in zip(wanted, got, strict=True)) >= SAME_DB
    assert worst_db(*wanted) < 30  # the two types differ


def test_types_of_one_file_have_the_same_tensors_but_for_two_vectors(xl_folder: Path, unions: Path) -> None:
    files = {"canny": unions / "union", "depth": unions / "union", "tile": unions / "promax"}
    checkpoint = load(xl_folder, files)
    assert checkpoint.controlnets == {"canny": "canny", "depth": "depth", "tile": "tile"}
    first, second, third = (dict(checkpoint.parts[f"controlnet{n}"].named_parameters()) for n in ("", "_2", "_3"))
    own = {key for key in first if second[key] is not first[key]}
    assert own == {"time_embedding.linear_2.bias", "control_fuser.task_embedding"}
    assert not any(torch.equal(first[key], second[key]) for key in own)
    assert not any(third[key] is first[key] for key in first)
    # They are called with the functions of the first, and none of them knows how many types there are.
    assert {checkpoint.functions[f"{name}_{n}"] for name in CONTROLS for n in (2, 3)} == set(CONTROLS)


def test_only_what_reads_the_control_image_is_another_graph_than_a_plain_controlnets(
    xl_folder: Path, unions: Path
) -> None:
    files = {"plain": xl_folder / "controlnet", "canny": unions / "union"}
    checkpoint = load_checkpoint(
        xl_folder, HEIGHT, WIDTH, controlnets=files, control_types={"canny": "canny"}, components=CONTROLS
    )
    assert checkpoint.functions["controlnet_2"] == "controlnet"
    assert checkpoint.functions["control_embedding_2"] == "control_embedding_2"


def test_a_single_file_tells_by_its_shapes_how_many_types_it_has(tmp_path: Path) -> None:
    """Heads of 64 channels and sinusoids of 256, as in the published models."""
    widths = {"block_out_channels": (64, 128, 192), "attention_head_dim": (1, 2, 3), "norm_num_groups": 32}
    times = {"addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 40 + 6 * 256}
    model = build_union(PROMAX, **widths, **times, layers_per_block=2)
    file = tmp_path / "diffusion_pytorch_model_promax.safetensors"
    save_file(model.state_dict(), file)
    model.save_pretrained(tmp_path / "folder")
    from_file, from_folder = (
        load_part(read_controlnet(path, control_type="repaint"), "controlnet", {})
        for path in (file, tmp_path / "folder")
    )
    wanted = dict(from_folder.named_parameters())
    got = dict(from_file.named_parameters())
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)
    options, wanted_options = (
        {key: value for key, value in module.config.items() if key[0] != "_"} for module in (from_file, from_folder)
    )
    assert options == wanted_options
    with pytest.raises(UserError, match=f"one of {KNOWN}, tile, inpaint; choose another"):
        read_controlnet(file, control_type="dog")


def test_a_folder_whose_configuration_is_of_a_plain_controlnet_is_told_by_its_tensors(
    unions: Path, tmp_path: Path
) -> None:
    whole = json.loads((unions / "promax" / "config.json").read_text())
    plain = {key: value for key, value in whole.items() if not key.startswith("num_")}
    (tmp_path / "config.json").write_text(json.dumps({**plain, "_class_name": "ControlNetModel"}))
    (tmp_path / FILE).symlink_to(unions / "promax" / FILE)
    told = read_controlnet(tmp_path, control_type="tile")
    known = read_controlnet(unions / "promax" / FILE, control_type="tile")
    read, wanted = told.read(), known.read()
    assert read.keys() == wanted.keys()
    assert all(torch.equal(read[key], wanted[key]) for key in wanted)
    assert told.control_type == "tile"
    with pytest.raises(UserError, match=f"without a control type, wanted one of {KNOWN}, tile, inpaint"):
        load_part(read_controlnet(tmp_path), "controlnet", {})


@pytest.mark.parametrize(
    ("name", "control_type", "complaint"),
    [
        ("union", "", f"got a union ControlNet without a control type, wanted one of {KNOWN}; choose it when you "),
        ("union", "dog", f"got control type 'dog', wanted one of {KNOWN}; choose another PATH:TYPE"),
        ("union", "shuffle", f"got control type 'shuffle', wanted one of {KNOWN}; "),
        (
            "union",
            "tile",
            f"got control type 'tile', which a promax model has and this one lacks, wanted one of {KNOWN}",
        ),
        ("plain", "canny", "got control type 'canny', wanted none: it was trained for one kind of control image; "),
    ],
)
def test_a_control_type_that_a_controlnet_lacks_is_refused_with_those_it_has(
    xl_folder: Path, unions: Path, name: str, control_type: str, complaint: str
) -> None:
    folder = xl_folder / "controlnet" if name == "plain" else unions / name
    with pytest.raises(UserError) as error:
        read_controlnet(folder, control_type=control_type)
    assert str(error.value).startswith(f"controlnet {folder}: {complaint}")


def test_a_models_own_union_controlnet_needs_a_choice(xl_folder: Path, unions: Path, tmp_path: Path) -> None:
    for path in xl_folder.iterdir():
        if path.name != "controlnet":
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "controlnet").symlink_to(unions / "union")
    with pytest.raises(UserError, match=rf"without a control type.*--controlnet {tmp_path / 'controlnet'}:canny"):
        load_checkpoint(tmp_path, components=CONTROLS)
    assert load(tmp_path, {"seg": tmp_path / "controlnet"}).controlnets == {"seg": "seg"}


def test_a_base_of_another_family_is_refused(first: Tiny, unions: Path, tmp_path: Path) -> None:
    base = first.save_folder(tmp_path / "first")
    with pytest.raises(UserError, match="text width 112, wanted 128, as the base model has"):
        load(base, {"canny": unions / "union"})


def test_a_configuration_without_the_width_of_the_types_is_refused(unions: Path, tmp_path: Path) -> None:
    options = json.loads((unions / "union" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**options, "addition_time_embed_dim": None}))
    with pytest.raises(UserError, match="num_control_type 6 and addition_time_embed_dim None, wanted numbers"):
        read_controlnet(tmp_path, control_type="canny")


def test_types_are_added_to_a_compiled_base(xl_folder: Path, unions: Path) -> None:
    checkpoint = load(xl_folder, {"canny": unions / "union"})
    added = load_added_controlnets(
        {"depth": unions / "union", "seg": unions / "union"},
        ["canny"],
        [checkpoint.shape],
        checkpoint.defaults,
        "base",
        control_types={"depth": "depth", "seg": "seg"},
    )
    assert list(added.controlnets.items()) == [("canny", ""), ("depth", "depth"), ("seg", "seg")]
    second, third = (added.parts[part].conv_in.weight for part in ("controlnet_2", "controlnet_3"))
    assert second is third


@pytest.mark.parametrize(
    ("key", "change", "complaint"),
    [
        ("task_embedding", lambda tensor: tensor[:5], r"task_embedding: got \[5, 32\], wanted \[6, 32\] by its config"),
        ("control_add_embedding.linear_1.weight", None, r"got no such tensor, wanted \[128, 96\]"),
        ("transformer_layes.0.attn.in_proj_weight", lambda tensor: tensor[:, :8], r"got \[32, 8\], wanted \[32, 32\]"),
        ("spatial_ch_projs.bias", None, r"lacks 1 tensor\(s\) \(control_fuser.spatial_ch_projs.bias\)"),
    ],
)
def test_weights_that_do_not_fit_the_configuration_are_refused(
    unions: Path, tmp_path: Path, key: str, change: object, complaint: str
) -> None:
    tensors = load_file(unions / "union" / FILE)
    tensor = tensors.pop(key)
    if callable(change):
        tensors[key] = change(tensor).contiguous()
    save_file(tensors, tmp_path / FILE)
    (tmp_path / "config.json").symlink_to(unions / "union" / "config.json")
    with pytest.raises(UserError, match=complaint):
        load_part(read_controlnet(tmp_path, control_type="canny"), "controlnet", {})
