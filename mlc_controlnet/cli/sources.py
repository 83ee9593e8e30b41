"""`sources`: write every kernel as source code for another GPU."""

import argparse
from pathlib import Path

from mlc_controlnet.cli.starting import BUILDS, say_starting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target", required=True, help="cuda: CUDA C; metal: Metal; opencl: OpenCL C; rocm: AMD's LLVM assembly"
    )
    parser.add_argument("--model", default="circles", help="as in build; default: circles")
    parser.add_argument("--dtype", default="float16", help="float16 or float32; default: float16")
    parser.add_argument(
        "--out", type=Path, default=Path("dist"), help="the folder to write the file into; default: dist"
    )
    parser.add_argument(
        "--component", action="append", metavar="NAME", help="write only this component's kernels; can be repeated"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    say_starting(BUILDS)

    from mlc_controlnet.compile.sources import write_source
    from mlc_controlnet.components import COMPONENTS

    components = options.component or COMPONENTS
    print(write_source(options.target, options.model, options.dtype, options.out, components, _say))


def _say(line: str) -> None:
    print(line, flush=True)
