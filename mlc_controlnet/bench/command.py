"""python -m mlc_controlnet bench kernels | model | report."""

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from mlc_controlnet.bench.figures import FOLDER, KERNELS, MODEL, read_figures, write_figures
from mlc_controlnet.components import UNET

HOSTS = ("chromium", "node", "native")
REPOSITORY = Path(__file__).parents[2]


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    kernels = commands.add_parser(KERNELS, help="time single operations against onnxruntime-web or torch")
    _add_contest(kernels)
    kernels.add_argument("--only", action="append", default=[], metavar="PART", help="those with this in their name")
    model = commands.add_parser(MODEL, help="time a model's components against onnxruntime-web or torch")
    _add_contest(model)
    model.add_argument("--model", default="circles", help="what build.py --model takes (circles)")
    model.add_argument("--component", action="append", default=[], help=f"repeat it for more ({UNET})")
    commands.add_parser("report", help="write README.md's table and plots from the figures that are kept").set_defaults(
        run=_report
    )


def _add_contest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host",
        choices=HOSTS,
        default="chromium",
        help="chromium; node: WebGPU without a browser; native: against torch, eager and compiled (chromium)",
    )
    parser.add_argument("--gpu", action="store_true", help="in Chromium the machine's GPU, not the software adapter")
    parser.add_argument("--target", default="llvm", help="of the native library, as build.py --target (llvm)")
    parser.add_argument("--dtype", help="float32 or float16 (float16 on GPUs that have it)")
    parser.add_argument("--rounds", type=int, default=5, help="turns each takes, of which the median counts (5)")
    parser.add_argument("--keep", action="store_true", help="keep the figures, and write README.md's table and plots")
    parser.set_defaults(run=_measure)


def _measure(options: argparse.Namespace) -> None:
    from mlc_controlnet.bench.measure import Settings, measure_in_browser, measure_natively, row_order
    from mlc_controlnet.bench.report import table

    settings = Settings(
        subject=options.bench_command,
        host=options.host,
        gpu=options.gpu,
        target=options.target,
        dtype=options.dtype,
        rounds=options.rounds,
        only=tuple(getattr(options, "only", ())),
        model=getattr(options, "model", ""),
        components=tuple(getattr(options, "component", ())) or (UNET,),
        command=_command(options),
    )
    measure = measure_natively if options.host == "native" else measure_in_browser
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(settings, Path(folder), _tell)
    print("\n".join(table(figures)))
    if options.keep:
        print(write_figures(figures, order=row_order(options.bench_command)))
        _report(options)


def _report(_options: argparse.Namespace) -> None:
    from mlc_controlnet.bench.report import write_report

    for path in write_report(read_figures(), REPOSITORY / "README.md", FOLDER):
        print(path)


def _command(options: argparse.Namespace) -> str:
    """The words that measure the same again."""
    words = ["python", "-m", "mlc_controlnet", "bench", options.bench_command, "--host", options.host]
    words += ["--gpu"] if options.gpu else []
    words += ["--target", options.target] if options.host == "native" else []
    words += ["--dtype", options.dtype] if options.dtype else []
    if options.bench_command == MODEL:
        words += ["--model", options.model, *(word for name in options.component for word in ("--component", name))]
    return shlex.join([*words, "--rounds", str(options.rounds), "--keep"])


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
