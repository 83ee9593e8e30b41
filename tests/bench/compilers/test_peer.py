"""A small UNet and ControlNet in the peer's operators: what they compute, and every launch of a call of each.

Recording is skipped where Mesa 25, spirv-tools, node or npm's packages are missing.
"""

import collections
import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch import nn
from torch.nn import functional as F

from mlc_controlnet.bench.compilers import judge_peer
from mlc_controlnet.bench.compilers import measure as measuring
from mlc_controlnet.bench.compilers.amd import mesa_version
from mlc_controlnet.bench.compilers.chips import W6800, W7900, Chip
from mlc_controlnet.bench.compilers.full_size import NAME, without_values
from mlc_controlnet.bench.compilers.judge import Launched, Subject, judge, launched_by_peer
from mlc_controlnet.bench.compilers.judge_peer import (
    OF_ATTENTION,
    judge_peer_operations,
    record_step,
    with_attention_named,
)
from mlc_controlnet.bench.compilers.judgement import Judgement
from mlc_controlnet.bench.compilers.peer import PeerLaunch, PeerModel
from mlc_controlnet.bench.compilers.peer_operators import (
    AttentionLayer,
    GatedProduct,
    TransformerBlock,
    export_fused,
    export_without_values,
    fuse,
)
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.cli.main import main
from mlc_controlnet.components import CONTROLNET, UNET, ModelShape
from mlc_controlnet.config import Defaults
from mlc_controlnet.errors import UserError
from mlc_controlnet.locations import WEB
from tests.bench.compilers.made_up_judgements import judgement, kernel

CHANNELS, TOKENS, TEXT = 32, 7, 16
SIZE = {
    "block_out_channels": (CHANNELS, CHANNELS),
    "layers_per_block": 1,
    "cross_attention_dim": TEXT,
    "attention_head_dim": 4,  # diffusers' name for the number of heads
}


def toy() -> Checkpoint:
    """Return a UNet and a ControlNet with one level of attention, for pictures of 128x96."""
    torch.manual_seed(0)
    down, up = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    unet = UNet2DConditionModel(sample_size=8, down_block_types=down, up_block_types=up, **SIZE)
    modules = {UNET: unet, CONTROLNET: ControlNetModel(down_block_types=down, **SIZE)}
    shape = ModelShape(
        height=128,
        width=96,
        tokens=TOKENS,
        text_width=TEXT,
        latent_channels=4,
        sample_channels=4,
        unet_channels=(CHANNELS, CHANNELS),
        layers_per_block=1,
    )
    parts = {name: module.requires_grad_(False).eval() for name, module in modules.items()}
    return Checkpoint("toy", tuple(parts), parts, {}, b"", {}, shape, Defaults(20, 7.5, 1.0))


def test_a_block_of_the_unet_in_the_peers_operators_computes_what_torch_computes(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    block = toy().parts[UNET].down_blocks[0]
    inputs = (torch.randn(1, CHANNELS, 6, 8), torch.randn(1, 4 * CHANNELS), torch.randn(1, TOKENS, TEXT))
    with torch.inference_mode():
        last, each = block(*inputs)
    export_fused(fuse(block), inputs, tmp_path / "block.onnx")
    operators = {node.op_type for node in onnx.load(tmp_path / "block.onnx").graph.node}
    assert operators >= {"MultiHeadAttention", "SkipLayerNormalization", "QuickGelu", "InstanceNormalization"}
    assert operators.isdisjoint({"Sigmoid", "GroupNormalization", "Softmax"})
    session = onnxruntime.InferenceSession(tmp_path / "block.onnx", providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    got = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    for ours, wanted in zip(got, (last, *each), strict=True):
        np.testing.assert_allclose(ours, wanted.numpy(), rtol=1e-3, atol=1e-4)


class BiasSplitGelu(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray]:
        hidden, gate = torch.from_numpy(x + bias).chunk(2, dim=-1)
        return ((hidden * F.gelu(gate)).numpy(),)


@pytest.mark.parametrize(("dtype", "is_joined"), [(torch.float32, True), (torch.float16, False)])
def test_geglu_is_one_operator_after_the_product_where_the_peers_shader_compiles(
    dtype: torch.dtype, is_joined: bool, tmp_path: Path
) -> None:
    proj = nn.Linear(16, 2560).to(dtype)
    x = torch.randn(1, 3, 16).to(dtype)
    hidden, gate = F.linear(x.float(), proj.weight.float(), proj.bias.float()).chunk(2, dim=-1)
    export_fused(GatedProduct(proj).eval(), (x,), tmp_path / "geglu.onnx")
    peer = ReferenceEvaluator(str(tmp_path / "geglu.onnx"), new_ops=[BiasSplitGelu])
    operators = [node.op_type for node in onnx.load(tmp_path / "geglu.onnx").graph.node]
    assert ("BiasSplitGelu" in operators) == is_joined
    (got,) = peer.run(None, {peer.input_names[0]: x.numpy()})
    np.testing.assert_allclose(got, (hidden * F.gelu(gate)).detach().numpy(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("head", "keys", "joined"), [(40, 300, True), (80, 77, True), (80, 78, False), (160, 7, False)]
)
def test_attention_has_the_form_that_is_faster_on_the_peer(head: int, keys: int, joined: bool, tmp_path: Path) -> None:
    layer = AttentionLayer(Attention(2 * head, cross_attention_dim=TEXT, heads=2, dim_head=head))
    x, context = torch.randn(1, 5, 2 * head), torch.randn(1, keys, TEXT)
    export_fused(layer.eval(), (x, context), tmp_path / "attention.onnx")
    operators = [node.op_type for node in onnx.load(tmp_path / "attention.onnx").graph.node]
    assert ("MultiHeadAttention" in operators) == joined and ("Softmax" in operators) != joined


def test_weights_without_values_are_one_file_as_large_as_the_largest(tmp_path: Path) -> None:
    layers = nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 64), nn.Linear(64, 8, bias=False))
    x = (torch.zeros(1, 64),)
    weights = export_without_values(fuse(without_values(layers)), x, tmp_path / "layers.onnx")
    assert weights.read_bytes() == bytes(4 * 64 * 128)
    model = onnx.load(tmp_path / "layers.onnx", load_external_data=False)
    where = [{one.key: one.value for one in tensor.external_data} for tensor in model.graph.initializer]
    lengths = [(one["location"], one["offset"], one["length"]) for one in where if one]
    assert sorted(lengths) == [("layers.bin", "0", "2048"), ("layers.bin", "0", "32768"), ("layers.bin", "0", "32768")]


def launch(program: str, operand_bytes: int = 4) -> PeerLaunch:
    return PeerLaunch(program, "", (2, 3, 1), (1,), operand_bytes)


def test_equal_launches_are_judged_once_and_counted() -> None:
    found = launched_by_peer([launch("Add"), launch("Mat Mul"), launch("Add"), launch("Add", 8)])
    assert found == {
        "Add_1": Launched("", 2, 6, 4, (1,)),
        "Mat_Mul_2": Launched("", 1, 6, 4, (1,)),
        "Add_3": Launched("", 1, 6, 8, (1,)),
    }


def test_the_products_around_a_softmax_are_attentions() -> None:
    programs = ["MatMul", "MatMul", "Transpose", "Softmax", "Transpose", "MatMul", "MatMul", "Softmax", "MatMul"]
    named = with_attention_named([launch(program) for program in programs])
    assert [one.program for one in named] == [
        "MatMul",
        OF_ATTENTION,
        "Transpose",
        "Softmax",
        "Transpose",
        OF_ATTENTION,
        OF_ATTENTION,
        "Softmax",
        OF_ATTENTION,
    ]


def test_the_faster_form_of_a_single_operation_counts_on_each_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(models: Sequence[PeerModel], folder: Path) -> dict[str, list[PeerLaunch]]:
        assert all((folder / model.onnx).exists() for model in models)
        return {model.name: [launch(model.name.replace("layer_norm_4096_320", "form"))] for model in models}

    def judge(
        subject: Subject, shaders: dict[str, Launched], _dtype: str, chips: Sequence[Chip]
    ) -> Iterator[tuple[Chip, Judgement]]:
        (name,) = shaders
        times = {"form_1": (10.0, 20.0), "form_fused_1": (15.0, 16.0)}[name]
        yield from ((chip, judgement(subject.name, kernel(name, us))) for chip, us in zip(chips, times, strict=True))

    monkeypatch.setattr(judge_peer, "record_peer", record)
    monkeypatch.setattr(judge_peer, "judge", judge)
    found = list(judge_peer_operations(("layer_norm",), "float32", (W7900, W6800)))
    assert [(chip.name, row.name, row.microseconds) for chip, row in found] == [
        ("navi31", "layer_norm_4096_320", 10.0),
        ("navi21", "layer_norm_4096_320", 16.0),
    ]


def test_a_form_with_a_loop_that_is_misread_does_not_count() -> None:
    right, misread = kernel("right", 20.0), dataclasses.replace(kernel("misread", 1.0), multiply_adds=1e8)
    forms = [judgement("attention", misread), judgement("attention", right)]
    assert min(forms, key=judge_peer.rank).kernels == (right,)


def test_the_peers_step_alone_is_judged_where_only_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def judge_step(dtype: str, chips: Sequence[Chip]) -> Iterator[tuple[Chip, Judgement]]:
        assert dtype == "float16"
        yield from ((chip, judgement(NAME, kernel("Conv2dMM_1", 50.0, 2))) for chip in chips)

    monkeypatch.setattr(measuring, "judge_peer_step", judge_step)
    monkeypatch.setattr(measuring, "mesa_version", lambda _chip: "25.0.7")
    assert main(["bench", "compilers", "--step", "--only", NAME, "--peer"]) == 0
    assert "sd15_step_512 on Radeon Pro W7900: 100.0 us" in capsys.readouterr().out


@pytest.mark.integration
def test_every_launch_of_a_step_is_recorded_and_judged() -> None:
    try:
        mesa_version(W7900)
    except UserError as error:
        pytest.skip(str(error))
    if shutil.which("node") is None or not (WEB / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("no node, or no onnxruntime-web")
    checkpoint = toy()
    launches = record_step(checkpoint, "float16")
    programs = collections.Counter(one.program for one in launches)
    convolutions, attentions = 0, 0
    for module in checkpoint.parts.values():
        for part in module.modules():
            convolutions += isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)
            attentions += isinstance(part, TransformerBlock)
    embedding = 8  # of the ControlNet's 3x3 convolutions, those that are no part of a step
    assert sum(count for name, count in programs.items() if "Conv" in name) == convolutions - embedding
    assert programs["FlashAttention"] == 2 * attentions == programs["SkipLayerNorm"]
    # A tensor in and out, and the scales and biases: no buffer is larger than its tensor.
    sizes = {2 * CHANNELS * (2 * pixels + 2) for pixels in (16 * 12, 8 * 6)}
    assert {one.operand_bytes for one in launches if one.program == "LayerNorm"} == sizes
    ((_, judged),) = judge(Subject("toy", "toy", 0.0, 1.0), launched_by_peer(launches), "float16", [W7900])
    assert judged.errors == {}
    assert sum(one.launches for one in judged.kernels) == len(launches)
    assert judged.microseconds == pytest.approx(
        sum(one.launches * max(one.microseconds.values()) for one in judged.kernels)
    )
