"""The attribute that says how the params of a function are made from those of the captured one.

Passes that split, join or permute params rewrite this one attribute, so its readers need not know in which order the
passes ran:

    captured            w0                      w1
    SplitLargeTables    w0[0:4], w0[4:8]        w1
    PackParams          w0[0:4], w0[4:8] + w1
    LayOutWeights       w0[0:4], permute(w0[4:8] + w1)

Rows are joined first and permuted last; splitting or joining a param that is permuted already is a bug of a pass.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import tvm
from tvm import relax

from mlc_controlnet.capture.param import TENSORS

_ATTRIBUTE = "param_sources"
_ALL = -1  # in place of the end of a run that takes the whole param


@dataclass(frozen=True)
class Run:
    """Rows of one captured param along axis 0.

    Attributes:
        number: of the captured param, from 0, inputs not counted.
        rows: None for all of them.
    """

    number: int
    rows: range | None = None


@dataclass(frozen=True)
class ParamSource:
    """The sources of one param: runs of rows, joined along axis 0, then permuted.

    Attributes:
        axes: as of `torch.permute`; () for a param that keeps its axes.
    """

    runs: tuple[Run, ...]
    axes: tuple[int, ...] = ()

    def part(self, rows: range) -> "ParamSource":
        """Return some rows of a param that is a whole captured one."""
        (run,) = self.runs
        assert run.rows is None and not self.axes, "split tables before anything else"
        return ParamSource((Run(run.number, rows),))

    def permuted(self, axes: Sequence[int]) -> "ParamSource":
        """Return the same rows with permuted axes."""
        assert not self.axes, "permute a param once"
        return replace(self, axes=tuple(axes))


def join(sources: Iterable[ParamSource]) -> ParamSource:
    """Join the rows of all `sources`, one under another, in one param."""
    joined = tuple(sources)
    assert not any(source.axes for source in joined), "join params before they are permuted"
    return ParamSource(tuple(run for source in joined for run in source.runs))


def inputs_of(function: relax.Function) -> int:
    """Return how many parameters of the function are inputs; its params follow them."""
    return int(function.attrs["num_input"])


def param_sources(function: relax.Function) -> list[ParamSource]:
    """Return one source per param, in order; before any pass, each param is the captured one of its number."""
    encoded = function.attrs.get(_ATTRIBUTE)
    if encoded is None:
        return [ParamSource((Run(number),)) for number in range(len(function.params) - inputs_of(function))]
    return [_decoded(*source) for source in encoded]


def tensors_of(function: relax.Function, source: ParamSource) -> tuple[str, ...]:
    """Name the tensors whose rows a param of the function consists of, for functions that share their tensors.

    A function that does not name its tensors shares none.
    """
    names = function.attrs.get(TENSORS)
    own = function.attrs.get("global_symbol", "main")
    return tuple(f"{own}: {run.number}" if names is None else str(names[run.number]) for run in source.runs)


def readers_of_tensors(mod: tvm.IRModule) -> dict[str, frozenset[str]]:
    """Map each tensor to the names of the functions that read it."""
    readers: dict[str, set[str]] = {}
    for global_var, function in mod.functions_items():
        if isinstance(function, relax.Function):
            for source in param_sources(function):
                for tensor in tensors_of(function, source):
                    readers.setdefault(tensor, set()).add(global_var.name_hint)
    return {tensor: frozenset(names) for tensor, names in readers.items()}


def with_params(
    function: relax.Function, body: relax.Function, params: Mapping[relax.Var, ParamSource]
) -> relax.Function:
    """Return the function with the body of `body` and with `params`, each with its source, after the same inputs."""
    inputs = list(function.params[: inputs_of(function)])
    new = relax.Function([*inputs, *params], body.body, function.ret_ty, function.is_pure, function.attrs)
    return new.with_attr(_ATTRIBUTE, [_encoded(source) for source in params.values()])


def _encoded(source: ParamSource) -> list[list[int]]:
    """Encode as [axes, run, run, ...] with run = [number, first row, last row + 1]."""
    runs = [[run.number, *((0, _ALL) if run.rows is None else (run.rows.start, run.rows.stop))] for run in source.runs]
    return [list(source.axes), *runs]


def _decoded(axes: Sequence[int], *runs: Sequence[int]) -> ParamSource:
    def run(number: int, start: int, stop: int) -> Run:
        return Run(int(number), None if stop == _ALL else range(int(start), int(stop)))

    return ParamSource(tuple(run(*numbers) for numbers in runs), tuple(int(axis) for axis in axes))
