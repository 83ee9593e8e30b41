"""The computations that a contest measures: operations of Stable Diffusion 1.5, or the components of a model."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import tvm
from torch import nn
from tvm.relax.utils import copy_with_new_vars

from mlc_controlnet.bench.operations.operations import Operation, select
from mlc_controlnet.bench.operations.work import Work, count_work
from mlc_controlnet.bench.packed_weights import pack
from mlc_controlnet.capture import CapturedModel, Param, capture, capture_module, example_inputs, wrap
from mlc_controlnet.checkpoint import find_model, load_checkpoint, model_name
from mlc_controlnet.components import is_matrix
from mlc_controlnet.errors import UserError
from mlc_controlnet.passes.pipeline import clean
from mlc_controlnet.passes.quantize.keep_float16 import read_float16
from mlc_controlnet.quantize import formats
from mlc_controlnet.quantize.formats import FLOAT16

DTYPES = {"float32": torch.float32, "float16": torch.float16}
LEAST_DB = {"float32": 60.0, "float16": 35.0}  # signal-to-noise ratio of outputs against torch in float32
Log = Callable[[str], None]  # takes one line of progress


@dataclass(frozen=True)
class Computation:
    """What a row of figures says of a case.

    Attributes:
        name: name of the function in the compiled library.
        title: description for readers.
        is_reduced: whether it is smaller than in the real model, because the device is slow.
    """

    name: str
    title: str
    work: Work
    is_reduced: bool


@dataclass(frozen=True)
class Case(Computation):
    """A computation with its tensors.

    Attributes:
        module: the torch module with its weights in the contest's dtype; the peer's model is exported from it.
        inputs: arguments of the module, in order.
        params: weights in the order of the compiled function, which takes them as one tuple after the inputs.
        weights: the format of the weights, as in build; not mixed.
        against: ours with its weights in float16, which takes the peer's place; None: the peer itself. A library in
            float32 has them widened, as a bundle's.
    """

    module: nn.Module
    inputs: tuple[torch.Tensor, ...]
    params: tuple[torch.Tensor, ...]
    weights: str = FLOAT16
    against: "Case | None" = None

    def least_db(self, dtype: str) -> float:
        """Return what our outputs must have against torch in float32."""
        return LEAST_DB[dtype] if self.weights == FLOAT16 else formats.LEAST_DB[self.weights]

    @property
    def without_tensors(self) -> Computation:
        """The case without what it holds in memory."""
        return Computation(self.name, self.title, self.work, self.is_reduced)

    def reference(self) -> list[torch.Tensor]:
        """Return the outputs that torch computes in float32 on the processor."""
        module = self.module
        if any(tensor.dtype == torch.float16 for tensor in module.state_dict().values()):
            module = copy.deepcopy(module).float()
        inputs = (value.float() if value.is_floating_point() else value for value in self.inputs)
        with torch.inference_mode():
            outputs = module(*inputs)
        return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


@dataclass(frozen=True)
class Cases:
    """The cases of one contest.

    Attributes:
        cases: the first is a large matmul, which gives the reference rate.
        module: one function per case, after phase clean.
    """

    cases: tuple[Case, ...]
    module: tvm.IRModule

    def with_float16_weights(self) -> "Cases":
        """Return the same cases, in float32, whose functions read matrices in float16, as a library for llvm does."""
        cases = (
            dataclasses.replace(
                case, params=tuple(param.half() if is_matrix(param.shape) else param for param in case.params)
            )
            for case in self.cases
        )
        return Cases(tuple(cases), read_float16(self.module, {case.name: () for case in self.cases}))


def operation_cases(patterns: tuple[str, ...], reduced: bool, dtype: str) -> Cases:
    """Return the operations whose name contains one of `patterns`, or all operations if there are no patterns.

    Raises UserError if no operation matches.
    """
    chosen = select(patterns, reduced)
    if len(chosen) == 1:
        names = ", ".join(operation.name for operation in select((), reduced)[1:])
        raise UserError("--only", ", ".join(patterns), f"a part of one of {names}", "pass one of these")
    return _captured(chosen, reduced, dtype)


def component_cases(
    model: str, components: Sequence[str], reduced: bool, dtype: str, weights: Sequence[str] = ()
) -> Cases:
    """List a model's components with random inputs. `reduced` concerns the large matmul only.

    Args:
        model: a value of `build --model`.
        components: names of components.COMPONENTS.
        weights: packed formats, keys of quantize.formats.FORMATS; a case for each, against the same component in
            float16. None of them: the components as they are.

    Raises UserError if the model cannot be loaded.
    """
    matmul = _captured(select((), reduced)[:1], reduced, dtype)
    checkpoint = load_checkpoint(find_model(model), name=model_name(model), components=tuple(components))
    captured = clean(capture(checkpoint, dtype))
    tensors, modules = checkpoint.tensors(), wrap(checkpoint)
    cases = list(matmul.cases)
    functions = {**dict(matmul.module.functions_items()), **dict(captured.module.functions_items())}
    captured = dataclasses.replace(captured, module=tvm.IRModule(functions))
    for name in components:
        module = copy.deepcopy(modules[name]).to(DTYPES[dtype]).eval()
        inputs = example_inputs(checkpoint.specs[name], dtype)
        title = f"{checkpoint.name}, {name.replace('_', ' ')}"
        params = _values(captured.params[name], tensors, dtype)
        plain = Case(name, title, count_work(module, inputs), False, module, inputs, params)
        if not weights:
            cases.append(plain)
        for format in weights:
            captured = _with_packed(captured, name, format)
            packed = f"{name}_{format}"
            own = _values(captured.params[packed], tensors, dtype)
            case = dataclasses.replace(plain, name=packed, title=f"{title}, {format}", params=own)
            cases.append(dataclasses.replace(case, weights=format, against=plain))
    return Cases(tuple(cases), captured.module)


def _values(params: Sequence[Param], tensors: Mapping[str, torch.Tensor], dtype: str) -> tuple[torch.Tensor, ...]:
    values = (param.read(tensors).detach() for param in params)
    return tuple(value if value.dtype == torch.uint32 else value.to(DTYPES[dtype]) for value in values)


def _with_packed(captured: CapturedModel, component: str, format: str) -> CapturedModel:
    """Return the model with one function more, COMPONENT_FORMAT: the component's, with packed weights."""
    name = f"{component}_{format}"
    module = captured.module.clone()
    module[name] = copy_with_new_vars(captured.module[component]).with_attr("global_symbol", name)
    added = dataclasses.replace(captured, module=module, params={name: captured.params[component]})
    packed = pack(added, format)
    return dataclasses.replace(packed, params={**captured.params, **packed.params})


def _captured(operations: Sequence[Operation], reduced: bool, dtype: str) -> Cases:
    modules, inputs = {}, {}
    functions, params = {}, {}
    tensors: dict[str, torch.Tensor] = {}
    for operation in operations:
        torch.manual_seed(0)
        name = operation.name
        modules[name] = operation.make().half().to(DTYPES[dtype]).eval()  # weights are as a bundle stores them
        shapes = operation.shapes(operation.size_on(reduced))
        inputs[name] = tuple(torch.randn(shape).to(DTYPES[dtype]) for shape in shapes)
        function, own_names = capture_module(modules[name], inputs[name])
        functions[tvm.ir.GlobalVar(name)] = function.with_attr("global_symbol", name)
        tensors |= {f"{name}.{own}": modules[name].get_parameter(own).detach() for own in own_names}
        params[name] = tuple(Param.whole(f"{name}.{own}") for own in own_names)
    captured = clean(CapturedModel(dtype, tvm.IRModule(functions), params))
    cases = tuple(
        Case(
            name=operation.name,
            title=operation.title(operation.size_on(reduced)),
            module=modules[operation.name],
            inputs=inputs[operation.name],
            params=tuple(param.read(tensors) for param in captured.params[operation.name]),
            work=count_work(modules[operation.name], inputs[operation.name], operation.flops_per_element),
            is_reduced=operation.size_on(reduced) != operation.size,
        )
        for operation in operations
    )
    return Cases(cases, captured.module)
