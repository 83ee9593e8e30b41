"""The command line: python -m mlc_controlnet generate | verify | bench | serve | train | parity | sources | tune.

Exit codes: 0 done, 2 a mistake of the user's (one line on stderr), 1 a failure of ours (a traceback), 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mlc_controlnet import __version__
from mlc_controlnet.environment import explain
from mlc_controlnet.errors import UserError

DEFAULT_BUNDLE = Path("dist/circles-llvm")
DEFAULT_SITE = Path("dist/site")
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

# Commands whose packages must not bring torch in. TVM's ffi imports torch wherever it is installed, which costs three
# seconds and 200 MB; generating a picture needs none of it.
WITHOUT_TORCH = frozenset({"generate", "verify", "bench", "serve"})


def main(arguments: Sequence[str], owns_process: bool = False) -> int:
    """Run one command and return its exit code.

    owns_process: the process ends with this call, so that torch may be shut out of it.
    """
    options = _parser().parse_args(arguments)
    needs_torch = getattr(options, "diffusers", None) or getattr(options, "bench_command", None) is not None
    if owns_process and options.command in WITHOUT_TORCH and not needs_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]  # Python's own way to make an import fail
    # diffusers asks transformers for image processors that nothing here uses, and those complain without torchvision.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    run: Callable[[argparse.Namespace], None] = options.run
    try:
        run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (ImportError, OSError) as error:
        explained = explain(error)
        if explained is None:
            raise
        print(f"error: {explained}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mlc_controlnet", description="Run, measure and train a ControlNet."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _add_generate(commands.add_parser("generate", help="draw a picture with a native bundle"))
    _add_verify(commands.add_parser("verify", help="check every file of a bundle against its hash"))
    _add_bench(commands.add_parser("bench", help="time native bundles"))
    _add_serve(commands.add_parser("serve", help="serve the built page on this machine"))
    _add_train(commands.add_parser("train", help="train a ControlNet on your own pictures"))
    _add_parity(commands.add_parser("parity", help="compare a compiled model with torch, at any size"))
    _add_sources(commands.add_parser("sources", help="write every kernel as source for another GPU"))
    _add_tune(commands.add_parser("tune", help="search for schedules and keep them in tuning_db/"))
    return parser


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", required=True, help="for example: gold circle with navy background")
    parser.add_argument("--control-image", required=True, type=Path, help="the picture that conditions")
    parser.add_argument("--image", type=Path, help="of an inpainting model: the picture to repaint")
    parser.add_argument("--mask-image", type=Path, help="likewise: white where it is to be repainted")
    parser.add_argument("--output", type=Path, default=Path("out.png"), help="PNG file to write (out.png)")
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE, help=f"a native bundle ({DEFAULT_BUNDLE})")
    parser.add_argument("--negative-prompt", default="", help="what to move away from")
    parser.add_argument("--seed", type=int, help="0 to 2^53 - 1 (drawn at random)")
    parser.add_argument("--steps", type=int, help="denoising steps (the bundle's default)")
    parser.add_argument("--guidance-scale", type=float, help="how much the prompt counts (the bundle's default)")
    parser.add_argument("--conditioning-scale", type=float, help="how much the control image counts (likewise)")
    parser.add_argument(
        "--control-guidance-start", type=float, default=0.0, help="share of the steps before it counts (0)"
    )
    parser.add_argument(
        "--control-guidance-end", type=float, default=1.0, help="share of the steps it counts until (1)"
    )
    parser.add_argument("--sampler", help="ddim, euler or dpmpp_2m (likewise)")
    parser.add_argument("--device", help="llvm, cuda, ... (what the bundle is for)")
    parser.add_argument(
        "--reduced-memory", action="store_true", help="keep fewer weights on the device: a third less memory, slower"
    )
    parser.set_defaults(run=_generate)


def _generate(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from mlc_controlnet.runtime.control_image import open_control_image
    from mlc_controlnet.runtime.inpainting import IMAGE, MASK_IMAGE
    from mlc_controlnet.runtime.pipeline import ControlNetPipeline
    from mlc_controlnet.runtime.png import check_output_path, write_png

    check_output_path(options.output)
    control_image = open_control_image(options.control_image)
    image = None if options.image is None else open_control_image(options.image, IMAGE)
    mask_image = None if options.mask_image is None else open_control_image(options.mask_image, MASK_IMAGE)
    pipeline = ControlNetPipeline.from_bundle(options.bundle, options.device, options.reduced_memory)
    settings = pipeline.resolve(
        options.prompt,
        options.steps,
        options.guidance_scale,
        options.negative_prompt,
        options.conditioning_scale,
        options.seed,
        options.sampler,
        options.control_guidance_start,
        options.control_guidance_end,
    )
    with tqdm(total=settings.steps, unit="step", file=sys.stderr) as progress:
        output = pipeline(
            settings.prompt,
            image,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            negative_prompt=settings.negative_prompt,
            controlnet_conditioning_scale=settings.conditioning_scale,
            seed=settings.seed,
            sampler=settings.sampler,
            on_step=lambda step: progress.update(),
            mask_image=mask_image,
            control_image=control_image,
            control_guidance_start=settings.control_guidance_start,
            control_guidance_end=settings.control_guidance_end,
        )
    for notice in output.notices:
        print(f"notice: {notice}", file=sys.stderr)
    write_png(options.output, output.images[0], output.metadata)
    print(f"{options.output}: seed {settings.seed}")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, nargs="?", default=DEFAULT_BUNDLE, help=f"({DEFAULT_BUNDLE})")
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> None:
    from mlc_controlnet.bundle.reader import verify_bundle

    bundle = verify_bundle(options.bundle)
    files = bundle.manifest.files
    megabytes = sum(entry.bytes for entry in files) / 1e6
    print(f"{bundle.path}: {len(files)} files, {megabytes:.1f} MB, all as the manifest says; sha256 {bundle.sha256}")


def _add_bench(parser: argparse.ArgumentParser) -> None:
    from mlc_controlnet.bench import command as bench_command

    parser.add_argument("--bundle", type=Path, action="append", help=f"repeat it to compare ({DEFAULT_BUNDLE})")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps of a picture (20)")
    parser.add_argument("--rounds", type=int, default=5, help="pictures a bundle, of which the median counts (5)")
    parser.add_argument("--device", help="llvm, cuda, ... (what the bundle is for)")
    parser.add_argument("--diffusers", type=Path, metavar="MODEL", help="also time diffusers in torch on this folder")
    parser.set_defaults(run=_bench)
    commands = parser.add_subparsers(dest="bench_command", metavar="command")
    _add_bench_train(commands)
    bench_command.add_arguments(commands)


def _add_bench_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("train", help="time training steps against diffusers' example")
    parser.add_argument("--model", default="circles", help="circles, or sd15: the real shapes with random weights")
    parser.add_argument("--batch", type=int, default=8, help="samples a step (8)")
    parser.add_argument("--precision", default="32", help="32, bf16 or fp16 (32)")
    parser.add_argument("--pixels", type=int, help="height and width of the pictures (circles 128, sd15 512)")
    parser.add_argument("--rounds", type=int, default=20, help="turns each takes, of which the median counts (20)")
    parser.add_argument("--steps", type=int, default=1, help="training steps of a turn (1)")
    parser.add_argument("--one-by-one", action="store_true", help="not in turns: where they do not fit side by side")
    parser.add_argument("--raw", type=Path, metavar="FILE", help="write every turn's time as JSON")
    parser.add_argument(
        "--options", action="store_true", help="also what flash attention, channels-last, ... are worth"
    )
    parser.add_argument("--inductor", action="store_true", help="among them torch.compile: minutes of compiling")
    parser.set_defaults(run=_bench_train)


def _bench_train(options: argparse.Namespace) -> None:
    from mlc_controlnet.bench.train import Settings, measure

    settings = Settings(
        options.model,
        options.batch,
        options.precision,
        options.rounds,
        options.steps,
        options.options or options.inductor,
        options.inductor,
        options.one_by_one,
        options.pixels,
    )
    for line in measure(settings, options.raw):
        print(line, flush=True)


def _bench(options: argparse.Namespace) -> None:
    from mlc_controlnet.bench.native import measure

    bundles = [DEFAULT_BUNDLE] if options.bundle is None else options.bundle
    for figures in measure(bundles, options.device, options.steps, options.rounds, options.diffusers):
        print("\n".join(figures.lines()))


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", default=DEFAULT_SITE, help=f"the built page ({DEFAULT_SITE})")
    parser.add_argument("--port", type=int, help="(8000, or where that is taken any free one)")
    parser.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> None:
    from mlc_controlnet.serve import open_server

    with open_server(options.folder, options.port) as server:
        print(f"http://{server.server_name}:{server.server_port}/   (Ctrl+C ends it)", flush=True)
        server.serve_forever()


def _add_train(parser: argparse.ArgumentParser) -> None:
    from mlc_controlnet.train import command

    command.add_arguments(parser)


def _add_parity(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="circles", help="what build.py --model takes (circles)")
    parser.add_argument("--dtype", action="append", help="float32 or float16; repeat it (both)")
    parser.add_argument("--height", type=int, help="pixels (what the model was trained on)")
    parser.add_argument("--width", type=int, help="pixels (what the model was trained on)")
    parser.add_argument("--component", action="append", metavar="NAME", help="compare this one alone; repeat it")
    parser.set_defaults(run=_parity)


def _parity(options: argparse.Namespace) -> None:
    from mlc_controlnet.compare import compare_model
    from mlc_controlnet.components import COMPONENTS

    dtypes, components = options.dtype or ("float32", "float16"), options.component or COMPONENTS
    for line in compare_model(options.model, dtypes, options.height, options.width, components):
        print(line, flush=True)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", required=True, help="cuda, rocm, metal or opencl")
    parser.add_argument("--model", default="circles", help="what build.py --model takes (circles)")
    parser.add_argument("--dtype", default="float16", help="float16 or float32 (float16)")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="the folder that gets the file (dist)")
    parser.add_argument("--component", action="append", metavar="NAME", help="write this one's alone; repeat it")
    parser.set_defaults(run=_sources)


def _sources(options: argparse.Namespace) -> None:
    from mlc_controlnet.components import COMPONENTS
    from mlc_controlnet.sources import write_source

    print(write_source(options.target, options.model, options.dtype, options.out, options.component or COMPONENTS))


def _add_tune(parser: argparse.ArgumentParser) -> None:
    from mlc_controlnet.tuning import command

    command.add_arguments(parser)
    parser.set_defaults(run=command.run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], owns_process=True))
