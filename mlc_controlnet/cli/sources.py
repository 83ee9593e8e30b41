"""`sources`: write every kernel as source for another GPU."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", required=True, help="cuda, rocm, metal or opencl")
    parser.add_argument("--model", default="circles", help="what build.py --model takes (circles)")
    parser.add_argument("--dtype", default="float16", help="float16 or float32 (float16)")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="the folder that gets the file (dist)")
    parser.add_argument("--component", action="append", metavar="NAME", help="write this one's alone; repeat it")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from mlc_controlnet.compile.sources import write_source
    from mlc_controlnet.components import COMPONENTS

    print(write_source(options.target, options.model, options.dtype, options.out, options.component or COMPONENTS))
