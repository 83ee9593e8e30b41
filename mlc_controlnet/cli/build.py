"""`build`: compile a model into a bundle."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mlc_controlnet.cli.build_options import add_options
from mlc_controlnet.cli.defaults import SITE
from mlc_controlnet.cli.environment import BUILD_PACKAGES, check_packages
from mlc_controlnet.cli.starting import BUILDS, say_starting
from mlc_controlnet.components import COMPONENTS
from mlc_controlnet.config import (
    TARGETS,
    Budget,
    BuildConfig,
    CalibrationOption,
    ControlNetOption,
    EmbeddingOption,
    LoraOption,
    WeightsOption,
    parse_size,
)
from mlc_controlnet.errors import UserError
from mlc_controlnet.instruction_sets import PORTABLE, resolve_browser_instruction_sets, resolve_instruction_sets
from mlc_controlnet.locations import DIST

if TYPE_CHECKING:
    from mlc_controlnet.site.models_file import Listing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    check_packages(BUILD_PACKAGES)
    say_starting(BUILDS)
    if options.add_controlnet:
        add(options)
        return
    from mlc_controlnet.build import build
    from mlc_controlnet.bundle.manifest import drawing_components
    from mlc_controlnet.site.build_site import build_site, check_site_folder

    config = resolve(options)
    listing = listing_of(options)
    site = site_folder(options.out)
    if config.target == "webgpu":
        check_site_folder(site)
    bundle = build(config)
    print(f"{bundle.path}: sha256 {bundle.sha256}")
    if config.target == "webgpu" and set(drawing_components(bundle.manifest.components)) <= set(config.components):
        build_site(bundle, site, listing)


def listing_of(options: argparse.Namespace) -> "Listing":
    """Return what the site's list of models says of this one: the options, or else what the model's folder says.

    Raises:
        UserError: an address is none, or a file is missing.
    """
    from mlc_controlnet.checkpoint import find_local_model
    from mlc_controlnet.site.model_card import licence_in, picture_in
    from mlc_controlnet.site.models_file import Listing, check_mirrors

    if options.picture is not None and not options.picture.is_file():
        raise UserError("--picture", f"no file {options.picture}", "a picture's file", "check the path")
    folder = find_local_model(options.model)
    licence = "" if folder is None else licence_in(folder)
    picture = None if folder is None else picture_in(folder)
    return Listing(options.licence or licence, options.picture or picture, check_mirrors(options.mirror))


def add(options: argparse.Namespace) -> None:
    """Add ControlNets to a bundle that exists.

    Raises:
        UserError: --out is missing, or another option would need a build.
    """
    from mlc_controlnet.add_controlnet import add_controlnets
    from mlc_controlnet.site.build_site import update_models
    from mlc_controlnet.site.models_file import MODELS_NAME

    own = ("add_controlnet", "out", "tuning_db", "model")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    unused = parser.parse_args([])
    if others := [name for name, value in vars(unused).items() if name not in own and getattr(options, name) != value]:
        got = ", ".join(f"--{name.replace('_', '-')}" for name in others)
        wanted = "only --out, and --model for a Control-LoRA: the rest is the bundle's"
        raise UserError("--add-controlnet", f"{got} beside it", wanted, "leave it out")
    if options.out is None:
        raise UserError("--add-controlnet", "no --out", "the folder of a bundle or of a site", "pass --out FOLDER")
    bundle = add_controlnets(
        options.out,
        [ControlNetOption.parse(text) for text in options.add_controlnet],
        options.tuning_db,
        None if options.model == unused.model else options.model,
    )
    if (options.out / MODELS_NAME).is_file():
        update_models(options.out)
    names = ", ".join(entry.name for entry in bundle.manifest.controlnets)
    print(f"{bundle.path}: has the ControlNets {names}; its sha256 is now {bundle.sha256}")


def site_folder(out: Path | None) -> Path:
    """Return the folder of the demo site: dist/site, or FOLDER-site next to the bundle of `--out FOLDER`."""
    if out is None:
        return SITE
    bundle = out.resolve()
    return bundle.parent / f"{bundle.name}-site"


def resolve(options: argparse.Namespace) -> BuildConfig:
    """Resolve the command line into a BuildConfig.

    Raises:
        UserError: an option has a value that there is no build for.
    """
    from mlc_controlnet.checkpoint import model_name

    _check(options)
    dtypes = options.dtype or (TARGETS[options.target].dtypes if options.target in TARGETS else ())
    sizes = [parse_size(text) for text in options.size]
    height, width = sizes[0] if sizes else (options.height, options.width)
    name = model_name(options.model)
    out = DIST / f"{name}-{options.target}" if options.out is None else options.out
    return BuildConfig(
        model=options.model,
        target=options.target,
        dtypes=tuple(dict.fromkeys(dtypes)),
        every_dtype=options.dtype is not None,
        out=out,
        tuning_db=options.tuning_db,
        tuning_family=options.tuning_family,
        instruction_sets=_instruction_sets(options.target, options.cpu),
        height=height,
        width=width,
        other_sizes=tuple(sizes[1:]),
        prompt_chunks=options.prompt_chunks,
        cached_branch=options.deepcache,
        tiles_vae=options.vae_tiling is not None,
        vae_tile=parse_size(options.vae_tiling, "--vae-tiling") if options.vae_tiling else None,
        dump_ir=options.dump_ir,
        controlnets=tuple(ControlNetOption.parse(text) for text in options.controlnet),
        vae=options.vae,
        preview_vae=options.preview_vae,
        loras=tuple(LoraOption.parse(text) for text in options.lora),
        embeddings=tuple(EmbeddingOption.parse(text) for text in options.embedding),
        components=tuple(options.component or COMPONENTS),
        tokenizer=options.tokenizer,
        prediction_type=options.prediction_type,
        weights=tuple(WeightsOption.parse(text) for text in options.weights),
        budget=None if options.budget is None else Budget.parse(options.budget),
        calibration=_calibration(options),
    )


def _check(options: argparse.Namespace) -> None:
    if options.target is None:
        raise UserError("--target", "none", f"one of {', '.join(TARGETS)}", "pass --target webgpu or --target llvm")
    if options.cpu != PORTABLE and options.target not in ("llvm", "webgpu"):
        wanted = "--target llvm or webgpu"
        raise UserError("--cpu", f"{options.cpu} with --target {options.target}", wanted, "leave --cpu out")
    if not options.tuning_db.is_dir():
        got, remedy = f"{options.tuning_db}, which is no folder", "leave it out for those of this program"
        raise UserError("--tuning-db", got, "a folder of tuning records", remedy)
    if options.size and (options.height, options.width) != (None, None):
        raise UserError("--size", "--height or --width beside it", "one of both ways", "pass --size alone")


def _calibration(options: argparse.Namespace) -> CalibrationOption | None:
    if options.calibrate is not None:
        from mlc_controlnet.calibration.prompts import read_prompts
        from mlc_controlnet.images.read import read_image

        for path in options.calibrate_image:
            read_image(path, "--calibrate-image")  # it is used when the model is loaded
        return CalibrationOption(read_prompts(options.calibrate), tuple(options.calibrate_image))
    if options.calibrate_image:
        raise UserError("--calibrate-image", "no --calibrate", "prompts beside it", "pass --calibrate PROMPTS")
    return None


def _instruction_sets(target: str, option: str) -> tuple[str, ...]:
    resolved = {"llvm": resolve_instruction_sets, "webgpu": resolve_browser_instruction_sets}.get(target)
    return () if resolved is None else resolved(option)
