"""`serve`: serve the built page on this machine."""

import argparse
from pathlib import Path

from mlc_controlnet.cli.defaults import SITE as DEFAULT_SITE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=DEFAULT_SITE,
        help=f"the site that build has written; default: {DEFAULT_SITE}",
    )
    parser.add_argument("--port", type=int, help="default: 8000, or any free port if 8000 is taken")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from mlc_controlnet.site.serve import open_server

    with open_server(options.folder, options.port) as server:
        print(f"http://{server.server_name}:{server.server_port}/   (press Ctrl+C to stop)", flush=True)
        server.serve_forever()
