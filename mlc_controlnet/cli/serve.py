"""`serve`: serve the built page on this machine."""

import argparse
from pathlib import Path

from mlc_controlnet.cli.defaults import SITE as DEFAULT_SITE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", default=DEFAULT_SITE, help=f"the built page ({DEFAULT_SITE})")
    parser.add_argument("--port", type=int, help="(8000, or where that is taken any free one)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from mlc_controlnet.site.serve import open_server

    with open_server(options.folder, options.port) as server:
        print(f"http://{server.server_name}:{server.server_port}/   (Ctrl+C ends it)", flush=True)
        server.serve_forever()
