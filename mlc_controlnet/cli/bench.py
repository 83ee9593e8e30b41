"""`bench`: measure whole pictures, single operations, components or training."""

import argparse
import sys
import tempfile
from pathlib import Path

from mlc_controlnet.bench.operations.figures import KERNELS, MODEL, write_figures
from mlc_controlnet.cli import bench_compilers
from mlc_controlnet.cli.defaults import BUNDLE as DEFAULT_BUNDLE
from mlc_controlnet.components import UNET
from mlc_controlnet.errors import UserError
from mlc_controlnet.locations import check_checkout

HOSTS = ("chromium", "node", "native")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bench`, which measures whole pictures, and its subcommands."""
    parser.add_argument(
        "--bundle", type=Path, action="append", help=f"can be repeated, to compare; default: {DEFAULT_BUNDLE}"
    )
    parser.add_argument("--steps", type=int, default=20, help="denoising steps per picture; default: 20")
    parser.add_argument("--rounds", type=int, default=5, help="pictures per bundle; their median counts; default: 5")
    parser.add_argument("--device", help="llvm, cuda, ...; default: the bundle's target")
    parser.add_argument(
        "--diffusers", type=Path, metavar="MODEL", help="also measure diffusers in torch with the model in this folder"
    )
    parser.set_defaults(run=_bench_pictures)
    commands = parser.add_subparsers(dest="bench_command", metavar="command")
    _add_bench_train(commands)
    _add_bench_serve(commands)
    _add_operations(commands)


def _add_bench_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("train", help="measure training steps against diffusers' example script")
    parser.add_argument(
        "--model",
        default="circles",
        help="circles, or sd15: Stable Diffusion 1.5's shapes with random weights; default: circles",
    )
    parser.add_argument("--batch", type=int, default=8, help="samples per step; default: 8")
    parser.add_argument("--precision", default="32", help="32, bf16 or fp16; default: 32")
    parser.add_argument(
        "--pixels", type=int, help="height and width of the pictures; default: 128 for circles, 512 for sd15"
    )
    parser.add_argument(
        "--rounds", type=int, default=20, help="turns of each contestant; their median counts; default: 20"
    )
    parser.add_argument("--steps", type=int, default=1, help="training steps per turn; default: 1")
    parser.add_argument(
        "--one-by-one",
        action="store_true",
        help="run one contestant after the other instead of in turns, if memory holds only one",
    )
    parser.add_argument("--raw", type=Path, metavar="FILE", help="write the time of every turn as JSON")
    parser.add_argument(
        "--options", action="store_true", help="also measure each option of ours: flash attention, channels-last, ..."
    )
    parser.add_argument(
        "--inductor", action="store_true", help="with --options: also torch.compile, which compiles for minutes"
    )
    parser.set_defaults(run=_bench_train, needs_torch=True)


def _bench_train(options: argparse.Namespace) -> None:
    from mlc_controlnet.bench.training.measure import TrainBenchSettings, measure

    settings = TrainBenchSettings(
        model=options.model,
        batch=options.batch,
        precision=options.precision,
        rounds=options.rounds,
        steps=options.steps,
        options=options.options or options.inductor,
        inductor=options.inductor,
        one_by_one=options.one_by_one,
        pixels=options.pixels,
    )
    for line in measure(settings, options.raw):
        print(line, flush=True)


def _bench_pictures(options: argparse.Namespace) -> None:
    from mlc_controlnet.bench.pictures.measure import time_pictures

    bundles = [DEFAULT_BUNDLE] if options.bundle is None else options.bundle
    for times in time_pictures(bundles, options.device, options.steps, options.rounds, options.diffusers):
        print("\n".join(times.lines()))


def _add_bench_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("serve", help="measure what the service over HTTP adds to a picture")
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE, help=f"default: {DEFAULT_BUNDLE}")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps per picture; default: 20")
    parser.add_argument("--rounds", type=int, default=20, help="pictures of each way; default: 20")
    parser.add_argument("--clients", type=int, default=50, help="that ask at once; default: 50")
    parser.add_argument("--pictures", type=int, default=500, help="after which memory is read again; default: 500")
    parser.set_defaults(run=_bench_serve)


def _bench_serve(options: argparse.Namespace) -> None:
    from mlc_controlnet.bench.service.measure import time_service

    pictures = (10, options.pictures)
    times = time_service(options.bundle, options.steps, options.rounds, options.clients, pictures)
    print("\n".join(times.lines()))


def _add_operations(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    kernels = commands.add_parser(KERNELS, help="measure single operations against onnxruntime-web, or natively")
    _add_contest(kernels)
    kernels.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PART",
        help="only operations with this in their name; can be repeated",
    )
    kernels.set_defaults(model="", component=[], weights=[])
    model = commands.add_parser(MODEL, help="measure a model's components against onnxruntime-web, or natively")
    _add_contest(model)
    model.add_argument("--model", default="circles", help="as in build; default: circles")
    model.add_argument("--component", action="append", default=[], help=f"can be repeated; default: {UNET}")
    model.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="FORMAT",
        help="on WebGPU: the component with packed weights, such as palette6, in turns with the same one with its "
        "weights in float16, instead of a peer; can be repeated",
    )
    model.set_defaults(only=[])
    bench_compilers.add_arguments(commands)
    report = commands.add_parser("report", help="write the tables and plots of README and docs/ from the kept figures")
    report.set_defaults(run=bench_compilers.report, needs_torch=True)


def _add_contest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host",
        choices=HOSTS,
        default="chromium",
        help="chromium; node: WebGPU without a browser; native: against torch and others; default: chromium",
    )
    parser.add_argument(
        "--gpu", action="store_true", help="in Chromium, use the machine's GPU instead of the software adapter"
    )
    parser.add_argument("--target", default="llvm", help="of the native library, as in build; default: llvm")
    parser.add_argument("--dtype", help="float32 or float16; default: float16 on GPUs that have it, otherwise float32")
    parser.add_argument(
        "--rounds", type=int, default=5, help="turns of each contestant; their median counts; default: 5"
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME",
        help="with --host native, only this peer; can be repeated; default: torch eager, torch.compile and, where they "
        "are installed, onnxruntime and OpenVINO",
    )
    parser.add_argument(
        "--cpu",
        metavar="NAME",
        help="the instruction set of our library. With --host native, such as x86-64-v3; default: the best that this "
        "processor has. In Chromium and Node, wasm-relaxed-simd or wasm-simd128: measure on the processor, against "
        "onnxruntime-web's WebAssembly; default: WebGPU",
    )
    parser.add_argument(
        "--threads", type=int, help="with --cpu in Chromium, the threads of each contestant; default: 1"
    )
    parser.add_argument("--keep", action="store_true", help="keep the figures and run `bench report`")
    parser.set_defaults(run=_bench_operations, needs_torch=True)


def _bench_operations(options: argparse.Namespace) -> None:
    from mlc_controlnet.bench.operations.measure import (
        ContestSettings,
        measure_natively,
        measure_on_browser_processor,
        measure_on_webgpu,
        row_order,
    )
    from mlc_controlnet.bench.operations.report import table

    settings = ContestSettings(
        subject=options.bench_command,
        host=options.host,
        gpu=options.gpu,
        target=options.target,
        dtype=options.dtype,
        rounds=options.rounds,
        only=tuple(options.only),
        peers=tuple(options.peer),
        cpu=options.cpu,
        threads=options.threads,
        model=options.model,
        components=tuple(options.component) or (UNET,),
        command=options.command_line,
        weights=tuple(options.weights),
    )
    if options.keep and options.weights:
        raise UserError("--keep", "with --weights", "figures against other projects", "leave one out")
    if options.keep or options.host != "native":
        check_checkout(f"bench {options.bench_command}")
    if settings.on_browser_processor:
        measure = measure_on_browser_processor
    else:
        measure = measure_natively if options.host == "native" else measure_on_webgpu
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(settings, Path(folder), _log)
    print("\n".join(table(figures)))
    if options.keep:
        print(write_figures(figures, order=row_order(options.bench_command)))
        bench_compilers.report(options)


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
