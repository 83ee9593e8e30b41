"""`build`: compile a model into a bundle."""

import argparse
from pathlib import Path

from mlc_controlnet.cli.environment import BUILD_PACKAGES, check_packages
from mlc_controlnet.components import COMPONENTS
from mlc_controlnet.config import DTYPES, PREDICTION_TYPES, TARGETS, BuildConfig, LoraOption
from mlc_controlnet.errors import UserError
from mlc_controlnet.locations import DIST, TUNING_DB


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", required=True, help=f"one of {', '.join(TARGETS)}")
    parser.add_argument(
        "--model",
        default="circles",
        help="a bundled model, a diffusers folder, a file, or a hub id org/name[@revision]",
    )
    parser.add_argument(
        "--controlnet",
        action="append",
        default=[],
        metavar="PATH",
        help="folder, file or hub id; default: the model's own",
    )
    parser.add_argument(
        "--lora", action="append", default=[], metavar="FILE[:WEIGHT]", help="merge a LoRA into the weights; repeat it"
    )
    parser.add_argument(
        "--component", action="append", metavar="NAME", help=f"build this one alone; repeat it: {', '.join(COMPONENTS)}"
    )
    parser.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="the model's own, or CLIP's for a single file")
    parser.add_argument("--prediction-type", help=f"what the UNet predicts: {', '.join(PREDICTION_TYPES)}")
    parser.add_argument(
        "--dtype",
        action="append",
        help=f"a library's dtype, {' or '.join(DTYPES)}; repeat it for both; default: both for webgpu, else float32",
    )
    parser.add_argument("--height", type=int, help="pixels; default: what the model was trained on")
    parser.add_argument("--width", type=int, help="pixels; default: what the model was trained on")
    parser.add_argument("--out", type=Path, help="the bundle's folder; default: dist/<model>-<target>")
    parser.add_argument("--tuning-db", type=Path, default=TUNING_DB, help="tuning records, a folder a target")
    parser.add_argument("--dump-ir", type=Path, metavar="FOLDER", help="write the IRModule after each phase there")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    check_packages(BUILD_PACKAGES)
    from mlc_controlnet.build import build
    from mlc_controlnet.bundle.manifest import drawing_components
    from mlc_controlnet.site.build_site import build_site

    config = resolve(options)
    bundle = build(config)
    print(f"{bundle.path}: sha256 {bundle.sha256}")
    if config.target == "webgpu" and set(drawing_components(bundle.manifest.components)) <= set(config.components):
        build_site(bundle)


def resolve(options: argparse.Namespace) -> BuildConfig:
    """Resolve the command line into a BuildConfig.

    Raises:
        UserError: an option has a value that there is no build for.
    """
    from mlc_controlnet.checkpoint import model_name

    dtypes = options.dtype or (TARGETS[options.target].dtypes if options.target in TARGETS else ())
    if len(options.controlnet) > 1:
        raise UserError(
            "--controlnet",
            f"{len(options.controlnet)} of them",
            "one: several at a time are not supported yet",
            "build a bundle for each",
        )
    name = model_name(options.model)
    out = DIST / f"{name}-{options.target}" if options.out is None else options.out
    return BuildConfig(
        model=options.model,
        target=options.target,
        dtypes=tuple(dict.fromkeys(dtypes)),
        every_dtype=options.dtype is not None,
        out=out,
        tuning_db=options.tuning_db,
        height=options.height,
        width=options.width,
        dump_ir=options.dump_ir,
        controlnet=options.controlnet[0] if options.controlnet else None,
        loras=tuple(LoraOption.parse(text) for text in options.lora),
        components=tuple(options.component or COMPONENTS),
        tokenizer=options.tokenizer,
        prediction_type=options.prediction_type,
    )
