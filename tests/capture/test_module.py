"""Capture on the shape of `circles` with random weights: every weight matters and nothing is downloaded."""

import copy

import pytest
import torch
import tvm
from tvm import relax

from mlc_controlnet.capture import CapturedModel, build_references
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.components import COMPONENTS
from mlc_controlnet.errors import UserError


def ops(function: relax.Function) -> set[str]:
    names = set()

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op):
            names.add(expr.op.name)

    relax.analysis.post_order_visit(function, visit)
    return names


def names_read(captured: CapturedModel) -> dict[str, list[str]]:
    return {component: [param.name for param in params] for component, params in captured.params.items()}


def test_all_components_are_functions_of_one_module(captured: CapturedModel) -> None:
    assert {v.name_hint for v in captured.module.functions} == set(COMPONENTS)


@pytest.mark.parametrize("name", COMPONENTS)
def test_inputs_come_before_params_with_the_declared_shapes(
    captured: CapturedModel, checkpoint: Checkpoint, name: str
) -> None:
    function, spec = captured.module[name], checkpoint.specs[name]
    inputs = function.params[: len(spec.inputs)]
    assert [tuple(int(d) for d in v.ty.shape) for v in inputs] == [t.shape for t in spec.inputs]
    assert [str(v.ty.dtype) for v in inputs] == [t.resolved("float32").dtype for t in spec.inputs]
    assert len(function.params) == len(spec.inputs) + len(captured.params[name])
    tensors = checkpoint.tensors()
    weights = function.params[len(spec.inputs) :]
    assert [tuple(int(d) for d in v.ty.shape) for v in weights] == [
        tuple(param.read(tensors).shape) for param in captured.params[name]
    ]


def test_attention_and_norms_stay_whole_for_the_passes(captured: CapturedModel) -> None:
    assert {"relax.nn.attention", "relax.nn.group_norm", "relax.nn.silu", "relax.nn.layer_norm"} <= ops(
        captured.module["unet"]
    )


def test_no_component_needs_int64_or_float64_inputs(captured: CapturedModel) -> None:
    for function in captured.module.functions.values():
        assert {str(v.ty.dtype) for v in function.params} <= {"float32", "int32"}


def test_every_tensor_is_read_exactly_once(captured: CapturedModel, checkpoint: Checkpoint) -> None:
    names = [param.name for params in captured.params.values() for param in params]
    assert sorted(names) == sorted(checkpoint.tensors())


def test_a_tensor_that_nothing_reads_is_named(captured: CapturedModel, checkpoint: Checkpoint) -> None:
    names = names_read(captured)
    names["unet"] = names["unet"][1:]
    with pytest.raises(UserError, match=r"unet\.conv_in\.weight"):
        checkpoint.check_every_tensor_is_read_once(names)


def test_a_tensor_that_is_read_twice_is_named(captured: CapturedModel, checkpoint: Checkpoint) -> None:
    names = names_read(captured)
    names["again"] = names["unet"][:1]
    with pytest.raises(UserError, match=r"unet\.conv_in\.weight.*more than once"):
        checkpoint.check_every_tensor_is_read_once(names)


def test_the_control_embedding_and_the_rest_are_the_whole_controlnet(checkpoint: Checkpoint) -> None:
    torch.manual_seed(0)
    references = build_references(checkpoint)
    controlnet = copy.deepcopy(checkpoint.parts["controlnet"]).float()
    specs = checkpoint.specs
    sample, timestep, context, _, scales = (torch.rand(t.shape) for t in specs["controlnet"].inputs)
    (image,) = (torch.rand(t.shape) for t in specs["control_embedding"].inputs)
    with torch.no_grad():
        embedding = references["control_embedding"](image)
        got = references["controlnet"](sample, timestep, context, embedding, scales)
        down, mid = controlnet(sample, timestep, context, image, return_dict=False)
    for residual, wanted, scale in zip(got, (*down, mid), scales, strict=True):
        torch.testing.assert_close(residual, wanted * scale)
