"""`parity`: compare a compiled model with torch, at any size."""

import argparse

from mlc_controlnet.cli.starting import BUILDS, say_starting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="circles", help="as in build; default: circles")
    parser.add_argument("--dtype", action="append", help="float32 or float16; can be repeated; default: both")
    parser.add_argument("--height", type=int, help="of the pictures, in pixels; default: the model's training size")
    parser.add_argument("--width", type=int, help="of the pictures, in pixels; default: the model's training size")
    parser.add_argument(
        "--component", action="append", metavar="NAME", help="compare only this component; can be repeated"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    say_starting(BUILDS)

    from mlc_controlnet.components import COMPONENTS
    from mlc_controlnet.parity.compare import compare_model

    dtypes, components = options.dtype or ("float32", "float16"), options.component or COMPONENTS
    for line in compare_model(options.model, dtypes, options.height, options.width, components, _say):
        _say(line)


def _say(line: str) -> None:
    print(line, flush=True)
