"""`serve`: serve the built page on this machine, and with --bundle also the pipeline over HTTP."""

import argparse
import os
from pathlib import Path
from typing import Any

from mlc_controlnet.cli.defaults import SITE as DEFAULT_SITE

TOKEN_VARIABLE = "MLC_CONTROLNET_TOKEN"  # noqa: S105  # the variable's name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=DEFAULT_SITE,
        help=f"the site that build has written; default: {DEFAULT_SITE}",
    )
    parser.add_argument("--port", type=int, help="default: 8000, or any free port if 8000 is taken")
    service = parser.add_argument_group("the pipeline over HTTP")
    service.add_argument(
        "--bundle",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="a native bundle to draw with; give it again for several models, the first is the default",
    )
    service.add_argument("--device", help="llvm, cuda, ... (default: the device that the bundle was built for)")
    service.add_argument("--reduced-memory", action="store_true", help="keep fewer weights on the device")
    service.add_argument("--queue", type=int, metavar="N", help="requests that may wait (default: 8)")
    service.add_argument(
        "--annotator",
        action=_AppendAnnotator,
        default=[],
        metavar="NAME=FILE",
        help="make control images by a network: depth, seg, openpose or softedge from an ONNX or TorchScript file, "
        "or from controlnet_aux:FOLDER; docs/service.md has the options",
    )
    service.add_argument("--log-prompts", action="store_true", help="write the prompt of each picture to the log")
    service.add_argument(
        "--listen",
        metavar="ADDRESS",
        help="accept requests of other machines at this address of this machine, 0.0.0.0 for all; wants --token",
    )
    service.add_argument(
        "--token",
        help=f"what every request must bring (default: the environment variable {TOKEN_VARIABLE}, if it is set)",
    )
    service.add_argument(
        "--cors",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let pages of this origin ask, for example https://example.org",
    )
    parser.set_defaults(run=run)


class _AppendAnnotator(argparse.Action):
    """Collect the values of --annotator. Some of them need torch, which this command otherwise leaves out."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        from mlc_controlnet.serve.annotators.named import needs_torch

        namespace.annotator = [*namespace.annotator, values]
        namespace.needs_torch = getattr(namespace, "needs_torch", False) or needs_torch(values)


def run(options: argparse.Namespace) -> None:
    if options.bundle or options.listen:
        _serve_pipeline(options)
        return
    from mlc_controlnet.site.serve import open_server

    with open_server(options.folder, options.port) as server:
        print(f"http://{server.server_name}:{server.server_port}/   (press Ctrl+C to stop)", flush=True)
        server.serve_forever()


def _serve_pipeline(options: argparse.Namespace) -> None:
    from mlc_controlnet.errors import UserError
    from mlc_controlnet.serve.annotators.named import describe, name_annotators
    from mlc_controlnet.serve.app import ServeOptions, create_app
    from mlc_controlnet.serve.guard import LOOPBACK
    from mlc_controlnet.serve.limits import Limits
    from mlc_controlnet.serve.listen import check_reach, open_socket, run_server
    from mlc_controlnet.serve.models import read_models

    token = options.token or os.environ.get(TOKEN_VARIABLE) or None
    check_reach(options.listen, token, options.bundle, options.cors)
    if options.queue is not None and options.queue < 0:
        raise UserError("--queue", str(options.queue), "0 or more", "leave it out for 8")
    limits = Limits() if options.queue is None else Limits(waiting=options.queue)
    models = read_models(options.bundle, options.device)
    page = options.folder if (options.folder / "index.html").is_file() else None
    with open_socket(options.listen, options.port) as listening:  # networks take seconds to load
        serve_options = ServeOptions(
            device=options.device,
            reduced_memory=options.reduced_memory,
            token=token,
            hosts=None if options.listen else LOOPBACK,
            origins=options.cors,
            page=page,
            limits=limits,
            annotators=name_annotators(options.annotator),
            logs_prompts=options.log_prompts,
        )
        for line in describe(options.annotator):
            print(line, flush=True)
        app = create_app(models, serve_options)
        address, port = listening.getsockname()[:2]
        print(f"http://{address}:{port}/{'' if page else 'docs'}   (press Ctrl+C to stop)", flush=True)
        run_server(app, listening)
