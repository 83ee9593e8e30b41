"""Capture all components of a checkpoint into one IRModule with named params."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import tvm
from torch import nn
from torch.export.graph_signature import InputKind
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program

from mlc_controlnet.capture.control_embedding import ControlEmbedding
from mlc_controlnet.capture.controlnet import ControlNet
from mlc_controlnet.capture.converters import CONVERTERS
from mlc_controlnet.capture.merge import Merge
from mlc_controlnet.capture.packed_param import WORDS, PackedParam
from mlc_controlnet.capture.param import TENSORS, Param
from mlc_controlnet.capture.residual_sum import ResidualSum
from mlc_controlnet.capture.text_encoder import TextEncoder
from mlc_controlnet.capture.text_encoder_2 import TextEncoder2
from mlc_controlnet.capture.unet import UNet
from mlc_controlnet.capture.unet_shallow import UNetShallow
from mlc_controlnet.capture.vae_decoder import VaeDecoder
from mlc_controlnet.capture.vae_encoder import VaeEncoder
from mlc_controlnet.checkpoint import Checkpoint, part_of
from mlc_controlnet.components import (
    CONTROL_EMBEDDING,
    CONTROLNET,
    PREVIEW_DECODER,
    RESIDUAL_SUM,
    TEXT_ENCODER,
    TEXT_ENCODER_2,
    UNET,
    UNET_SHALLOW,
    VAE_DECODER,
    VAE_ENCODER,
    ComponentSpec,
    Constant,
    InputSpec,
    Normal,
    Uniform,
    is_matrix,
    kind_of,
)

_TORCH_DTYPES = {"float32": torch.float32, "float16": torch.float16, "int32": torch.int32}


@dataclass(frozen=True)
class CapturedModel:
    """One IRModule with the components' functions, and the origin of each of their params in the checkpoint.

    Attributes:
        dtype: of stored weights and of the tensors that pass between components.
        module: each function takes its component's inputs and then its params, one argument each.
        params: component -> its params, in the order of each of its functions.
        others: function for another picture size or longer prompts -> its component.
        shared: component -> the component whose functions it is called with, for those without any of their own.
        merges: param -> how the device makes it, for those that a bundle does not store.
        memory_dtype: of the matrices among the params, weights of two or more axes, that functions read; "" for
            `dtype`. Tables of packed weights are no matrices.
    """

    dtype: str
    module: tvm.IRModule
    params: dict[str, tuple[Param, ...]]
    others: Mapping[str, str] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    merges: Mapping[Param, Merge] = field(default_factory=dict)
    memory_dtype: str = ""

    def function_of(self, component: str) -> str:
        """Return the name of the function that a component is called with."""
        return self.shared.get(component, component)

    def dtype_on_device(self, param: Param, axes: int) -> str:
        """Return the dtype in which functions read a param of so many axes."""
        if isinstance(param, PackedParam):
            return "uint32" if param.stores == WORDS else self.dtype
        return self.memory_dtype if self.memory_dtype and is_matrix(range(axes)) else self.dtype

    def sources(self, param: Param) -> tuple[Param, ...]:
        """Return what a bundle stores of a param: the param, or those that the device makes it of."""
        return self.merges[param].sources if param in self.merges else (param,)

    @property
    def stored(self) -> dict[str, tuple[Param, ...]]:
        """Component -> what a bundle stores for it."""
        return {name: tuple(s for param in own for s in self.sources(param)) for name, own in self.params.items()}


_WRAPPERS: dict[str, type[nn.Module]] = {
    TEXT_ENCODER: TextEncoder,
    TEXT_ENCODER_2: TextEncoder2,
    CONTROL_EMBEDDING: ControlEmbedding,
    CONTROLNET: ControlNet,
    VAE_DECODER: VaeDecoder,
    VAE_ENCODER: VaeEncoder,
    PREVIEW_DECODER: VaeDecoder,
}
_UNETS: dict[str, type[nn.Module]] = {UNET: UNet, UNET_SHALLOW: UNetShallow}


def wrap(checkpoint: Checkpoint) -> dict[str, nn.Module]:
    """Make the torch module of each component to build. Its inputs and outputs are those of `components.py`."""
    return {name: _wrapped(checkpoint, name) for name in checkpoint.components}


def _wrapped(checkpoint: Checkpoint, name: str) -> nn.Module:
    if name == RESIDUAL_SUM:
        return ResidualSum()
    part = checkpoint.parts[part_of(name)]
    if name in (UNET, UNET_SHALLOW):
        return _UNETS[name](part, checkpoint.shape.cached_branch)
    return _WRAPPERS[kind_of(name)](part)


def example_inputs(spec: ComponentSpec, compute_dtype: str, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Make inputs with the values of a pipeline, to capture a component and to compare it."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        _example(tensor, generator).to(_TORCH_DTYPES[tensor.resolved(compute_dtype).dtype]) for tensor in spec.inputs
    )


def _example(tensor: InputSpec, generator: torch.Generator) -> torch.Tensor:
    match tensor.example:
        case Constant(value):
            return torch.full(tensor.shape, value)
        case Uniform(low, high) if tensor.dtype == "int32":
            return torch.randint(int(low), int(high), tensor.shape, generator=generator)
        case Uniform(low, high):
            return torch.rand(tensor.shape, generator=generator) * (high - low) + low
        case Normal():
            return torch.randn(tensor.shape, generator=generator)


def capture(checkpoint: Checkpoint, compute_dtype: str = "float32") -> CapturedModel:
    """Capture every component with `compute_dtype` storage ("float32" or "float16") and float32 accumulation.

    Raises:
        UserError: a tensor of the checkpoint is read by no component, or by more than one.
    """
    functions: dict[tvm.ir.GlobalVar, relax.Function] = {}
    read: dict[str, tuple[str, ...]] = {}
    others: dict[str, str] = {}
    names = checkpoint.names_by_identity()
    modules = wrap(checkpoint)
    for name, spec in checkpoint.function_specs.items():
        module = modules[spec.name]
        skeleton = _skeleton(module.eval(), _TORCH_DTYPES[compute_dtype])
        function, own_names = capture_module(skeleton, example_inputs(spec, compute_dtype))
        tensors = tuple(names[id(module.get_parameter(own_name))] for own_name in own_names)
        attributes = {"global_symbol": name, TENSORS: list(tensors)}
        functions[tvm.ir.GlobalVar(name)] = function.with_attrs(attributes)
        assert read.setdefault(spec.name, tensors) == tensors, "a component reads the same tensors at every size"
        if name != spec.name:
            others[name] = spec.name
    shared = {name: function for name, function in checkpoint.functions.items() if function != name}
    for name, function in shared.items():
        read[name] = tuple(checkpoint.tensor_of(tensor, function, name) for tensor in read[function])
    checkpoint.check_every_tensor_is_read_once(read)
    params = {name: tuple(map(Param.whole, read[name])) for name in checkpoint.components}
    return CapturedModel(compute_dtype, tvm.IRModule(functions), params, others, shared)


def _skeleton(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy of the module with weights of `dtype` that hold no values.

    Capture reads only shapes and dtypes, and memory that is never written costs nothing.
    """
    weights = {id(p): nn.Parameter(torch.empty_like(p, dtype=dtype), requires_grad=False) for p in module.parameters()}
    return copy.deepcopy(module, weights).to(dtype)


def capture_module(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[relax.Function, list[str]]:
    """Capture a module. Returns the Relax function and the module's own names of its params, in argument order."""
    with torch.no_grad():
        program = torch.export.export(module, inputs, strict=False)
    imported = from_exported_program(
        program,
        keep_params_as_input=True,
        unwrap_unit_return_tuple=True,
        no_bind_return_tuple=False,
        run_ep_decomposition=False,
        custom_convert_map=CONVERTERS,
    )
    imported, detached = relax.frontend.detach_params(imported)
    # Buffers and lifted constants are bound into the function; only parameters are weights of the checkpoint.
    names = [str(s.target) for s in program.graph_signature.input_specs if s.kind == InputKind.PARAMETER]
    assert len(names) == len(detached["main"]), "the importer lists params in the signature's order"
    return imported["main"], names
