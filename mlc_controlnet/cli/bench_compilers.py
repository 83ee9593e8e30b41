"""`bench compilers`: judge kernels by the compilers of real GPUs; and `bench report`, which writes all tables."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mlc_controlnet.errors import UserError
from mlc_controlnet.locations import PERFORMANCE, README, SOFTWARE_ADAPTERS, check_checkout


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `bench compilers`."""
    parser = commands.add_parser("compilers", help="judge kernels by the compilers of real GPUs, without a GPU")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PART",
        help="only operations with this in their name; can be repeated",
    )
    parser.add_argument(
        "--step",
        action="store_true",
        help="also a whole step of Stable Diffusion 1.5, which takes minutes; with --only sd15_step_512, nothing else",
    )
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="FORMAT",
        help="with --step: what its weights are stored in, as in build, but for mixed; can be repeated: the step is "
        "judged with each; default: float16",
    )
    parser.add_argument("--peer", action="store_true", help="onnxruntime-web's shaders instead of ours")
    parser.add_argument(
        "--matrix-instructions",
        action="store_true",
        help="instead of ours a hand-written matrix product with matrix instructions, which Chromium has behind a flag",
    )
    parser.add_argument("--dtype", action="append", default=[], help="can be repeated; default: float16")
    parser.add_argument(
        "--chip",
        action="append",
        default=[],
        help="navi31 (Radeon Pro W7900), navi21 (W6800); with nvcc: sm_80 (A100), sm_89 (RTX 4090), sm_90 (H100); "
        "with ocloc, without times: acm-g10 (Arc A770), tgllp (Iris Xe); "
        "can be repeated; default: navi31",
    )
    parser.add_argument("--keep", action="store_true", help="keep the figures and run `bench report`")
    parser.add_argument(
        "--measured",
        type=Path,
        metavar="FILE",
        help="figures that `bench kernels --keep` measured on a GPU: only print their rank correlation with the kept "
        "predictions for --chip",
    )
    parser.set_defaults(run=_bench_compilers, needs_torch=True)


def _bench_compilers(options: argparse.Namespace) -> None:
    from mlc_controlnet.bench.compilers.chips import Chip
    from mlc_controlnet.bench.compilers.correlation import correlate
    from mlc_controlnet.bench.compilers.figures import FOLDER, PEER, find, read_figures, write_figures
    from mlc_controlnet.bench.compilers.intel import DEVICES
    from mlc_controlnet.bench.compilers.judgement import Judgement
    from mlc_controlnet.bench.compilers.measure import ORDER, JudgeSettings, measure
    from mlc_controlnet.bench.compilers.table import HEAD, LEGEND, lines
    from mlc_controlnet.quantize.formats import FLOAT16

    check_checkout("bench compilers")
    on_intel = [name for name in options.chip if name in DEVICES]
    if on_intel and options.weights:
        raise UserError("--weights", f"--chip {on_intel[0]}", "chips that a step is judged on", "leave out one of them")
    missing: list[UserError] = []  # of some chips: the rows of the others come first
    if on_intel:
        try:
            _on_intel(options, on_intel)
        except UserError as error:
            missing.append(error)
    options.chip = [name for name in options.chip if name not in DEVICES]
    if on_intel and not options.chip:
        _raise_last(missing)
        return
    settings = JudgeSettings(
        only=tuple(options.only),
        step=options.step,
        peer=options.peer,
        dtypes=tuple(options.dtype) or ("float16",),
        chips=tuple(options.chip) or ("navi31",),
        command=options.command_line,
        weights=tuple(options.weights) or (FLOAT16,),
        matrices=options.matrix_instructions,
    )
    kept = read_figures()
    if options.measured is not None:
        print("\n".join(correlate(kept, options.measured, settings.chips)))
        return

    def show(chip: Chip, dtype: str, judgement: Judgement) -> None:
        peer = None if options.peer else find(kept, PEER, chip.name, dtype)
        print("\n".join(lines(chip, judgement, peer.row(judgement.name) if peer else None)), flush=True)

    print(f"{LEGEND}\n{HEAD}")
    figures = measure(settings, show, missing.append)
    if options.keep and figures:
        for one in figures:
            print(write_figures(one, ORDER, FOLDER))
        report(options)
    _raise_last(missing)


def _on_intel(options: argparse.Namespace, devices: Sequence[str]) -> None:
    """Print, and keep if asked, what Intel's compiler says."""
    from mlc_controlnet.bench.compilers.figures import INTEL_FOLDER, write_figures
    from mlc_controlnet.bench.compilers.intel import IntelJudgement
    from mlc_controlnet.bench.compilers.judge_intel import intel_lines, measure_on_intel
    from mlc_controlnet.bench.compilers.measure import ORDER

    def show(device: str, judgement: IntelJudgement) -> None:
        print("\n".join(intel_lines(device, judgement)), flush=True)

    dtypes = options.dtype or ("float16",)
    figures = measure_on_intel(tuple(options.only), dtypes, devices, options.command_line, show)
    if options.keep:
        for one in figures:
            print(write_figures(one, ORDER, INTEL_FOLDER))
        report(options)


def _raise_last(errors: Sequence[UserError]) -> None:
    """Print all errors but the last and raise that one, if there are any."""
    if errors:
        for error in errors[:-1]:
            print(f"error: {error}", file=sys.stderr)
        raise errors[-1]


def report(_options: argparse.Namespace) -> None:
    """`bench report`: write the tables and plots of README and docs/ from the kept figures."""
    from mlc_controlnet.bench.compilers import figures as of_compilers
    from mlc_controlnet.bench.compilers.report import write_report as write_compilers
    from mlc_controlnet.bench.operations import figures as of_operations
    from mlc_controlnet.bench.operations.report import write_report

    check_checkout("bench report")
    for path in write_report(of_operations.read_figures(), SOFTWARE_ADAPTERS, of_operations.FOLDER):
        print(path)
    kept, intel = of_compilers.read_figures(), of_compilers.read_intel_figures()
    for path in write_compilers(kept, intel, (README, PERFORMANCE), of_compilers.FOLDER):
        print(path)
