"""`engine`: write the engine for other web pages."""

import argparse
from pathlib import Path

from mlc_controlnet.cli.defaults import ENGINE as DEFAULT_ENGINE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, nargs="?", default=DEFAULT_ENGINE, help=f"where to write it; default: {DEFAULT_ENGINE}"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from mlc_controlnet.site.write_engine import write_engine

    write_engine(options.folder)
    print(f"{options.folder}: ES modules with types; web/README.md in the project's repository says how to use them")
