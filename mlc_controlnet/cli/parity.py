"""`parity`: compare a compiled model with torch, at any size."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="circles", help="what build.py --model takes (circles)")
    parser.add_argument("--dtype", action="append", help="float32 or float16; repeat it (both)")
    parser.add_argument("--height", type=int, help="pixels (what the model was trained on)")
    parser.add_argument("--width", type=int, help="pixels (what the model was trained on)")
    parser.add_argument("--component", action="append", metavar="NAME", help="compare this one alone; repeat it")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from mlc_controlnet.components import COMPONENTS
    from mlc_controlnet.parity.compare import compare_model

    dtypes, components = options.dtype or ("float32", "float16"), options.component or COMPONENTS
    for line in compare_model(options.model, dtypes, options.height, options.width, components):
        print(line, flush=True)
