"""Give each weight of `--weights mixed` the bits that it needs: few where the outputs hardly change.

Apple's mixed-bit palettes run a model once for each layer and number of bits (apple/ml-stable-diffusion). Here two
gradients say the same of all of them: see `sensitivity.py`.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from mlc_controlnet.capture import CapturedModel, Param, Quantizer
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.components import OF_WEIGHTS_OF
from mlc_controlnet.config import Budget
from mlc_controlnet.errors import UserError
from mlc_controlnet.parity.sensitivity import Inputs, expected_errors, measure_sensitivities
from mlc_controlnet.passes.quantize.find_weights import Place
from mlc_controlnet.passes.quantize.kernel_shapes import kernel_shapes
from mlc_controlnet.quantize.allocation import Option, allocate, least_bytes
from mlc_controlnet.quantize.formats import FORMATS, MIXED, MIXED_FORMATS
from mlc_controlnet.quantize.scheme import Scheme
from mlc_controlnet.quantize.shared_formats import share_formats

# Of shapes with more than one format. Stable Diffusion 1.5 with a ControlNet has 1.99 MB of WGSL then, in the 2 MB that
# a library may have: 2.05 with 24. With 16 it would be 1.96, and the ControlNet of circles 3 dB further from float16.
MORE_KERNELS = 20


def mix_bits(
    captured: CapturedModel,
    checkpoint: Checkpoint,
    places: Mapping[Param, Place],
    formats: Mapping[Param, str],
    budget: Budget,
    inputs: Mapping[str, Sequence[Inputs]] | None = None,
    quantizer: Quantizer | None = None,
) -> dict[Param, str]:
    """Return `formats` with one of MIXED_FORMATS in the place of each MIXED, and print what was chosen.

    Args:
        places: of all weights that can be packed.
        formats: of the weights to pack.
        budget: of everything that the bundle stores as weights, or of each number that MIXED stands for.
        inputs: see `measure_sensitivities`.
        quantizer: see `expected_errors`.

    Raises:
        UserError: the budget is too small.
    """
    tensors = checkpoint.stored_tensors()
    groups = [group for group in _sharing(captured) if formats.get(group[0]) == MIXED]
    mixed = {param for group in groups for param in group}
    components = [
        name for name, own in captured.params.items() if name not in OF_WEIGHTS_OF and not mixed.isdisjoint(own)
    ]
    squares = measure_sensitivities(checkpoint, components, inputs)

    def scheme(param: Param, name: str) -> Scheme:
        return places[param].scheme(*FORMATS[name])

    def options_of(group: Sequence[Param]) -> list[Option]:
        schemes = [[scheme(param, name) for name in MIXED_FORMATS] for param in group]
        errors = [
            expected_errors(squares, param, own, tensors, quantizer) for param, own in zip(group, schemes, strict=True)
        ]
        sizes = [sum(one.bytes for one in own) for own in zip(*schemes, strict=True)]
        return [Option(*one) for one in zip(MIXED_FORMATS, sizes, map(sum, zip(*errors, strict=True)), strict=True)]

    options = [options_of(group) for group in groups]
    shapes = kernel_shapes(captured, mixed)
    stored = {param for own in captured.stored.values() for param in own} - mixed
    others = sum(scheme(param, formats[param]).bytes if param in formats else param.bytes(tensors) for param in stored)
    numbers = sum(places[param].numbers for param in mixed)
    chosen = _within(budget, options, [shapes[group[0]] for group in groups], others, numbers)
    _report(groups, chosen, places, others)
    return {**formats, **{p: option.format for group, option in zip(groups, chosen, strict=True) for p in group}}


def _within(
    budget: Budget, options: Sequence[Sequence[Option]], shapes: Sequence[Hashable], others: int, numbers: int
) -> list[Option]:
    least = least_bytes(options)
    room = int(budget.bits * numbers / 8) if budget.bytes is None else budget.bytes - others
    if room >= least:
        return allocate(share_formats(options, shapes, room, MORE_KERNELS), room)
    rest = f"{others / 1e6:.1f} MB of what stays as it is"
    if budget.bytes is None:
        got, wanted = f"{budget.bits:g} bits a weight", f"{8 * least / numbers:.2f} at least: 2 bits, and their tables"
    else:
        got = f"{budget.bytes / 1e6:.1f} MB"
        wanted = f"{(others + least) / 1e6:.1f} MB at least: {least / 1e6:.1f} MB with 2 bits a weight, and {rest}"
    raise UserError(f"--budget {budget}", got, wanted, "raise it, or give components a format of their own")


def _report(
    groups: Sequence[Sequence[Param]], chosen: Sequence[Option], places: Mapping[Param, Place], others: int
) -> None:
    numbers: Counter[str] = Counter()
    for group, option in zip(groups, chosen, strict=True):
        numbers[option.format] += sum(places[param].numbers for param in group)
    total, stored = numbers.total(), sum(option.bytes for option in chosen)
    shares = ", ".join(f"{numbers[name] / total:.0%} {name}" for name in MIXED_FORMATS if numbers[name])
    print(f"  mixed: {8 * stored / total:.2f} bits a weight ({shares}); ", end="")
    print(f"{(stored + others) / 1e6:.1f} MB of weights in all", flush=True)


def _sharing(captured: CapturedModel) -> list[tuple[Param, ...]]:
    """Return all params in groups of those that one function reads in one place: they have one scheme."""
    of_function: dict[str, list[tuple[Param, ...]]] = {}
    for component, own in captured.params.items():
        of_function.setdefault(captured.function_of(component), []).append(own)
    group_of: dict[Param, set[Param]] = {}
    for sharing in of_function.values():
        for same in zip(*sharing, strict=True):
            joined = set(same).union(*(group_of.get(param, ()) for param in same))
            group_of.update(dict.fromkeys(joined, joined))
    seen: set[Param] = set()
    groups = []
    for param, group in group_of.items():
        if param not in seen:
            groups.append(tuple(sorted(group, key=lambda p: p.name)))
            seen |= group
    return groups
