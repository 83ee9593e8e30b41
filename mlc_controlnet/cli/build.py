"""`build`: compile a model into a bundle."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mlc_controlnet.cli.defaults import SITE
from mlc_controlnet.cli.environment import BUILD_PACKAGES, check_packages
from mlc_controlnet.components import COMPONENTS
from mlc_controlnet.config import (
    DTYPES,
    PREDICTION_TYPES,
    TARGETS,
    WEIGHTS,
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
from mlc_controlnet.instruction_sets import (
    BROWSER_INSTRUCTION_SETS,
    INSTRUCTION_SETS,
    NATIVE,
    NONE,
    PORTABLE,
    resolve_browser_instruction_sets,
    resolve_instruction_sets,
)
from mlc_controlnet.locations import DIST, TUNING_DB

if TYPE_CHECKING:
    from mlc_controlnet.site.models_file import Listing

BUNDLED_MODEL = "circles"

# A second chunk serves nearly all prompts that people share. For Stable Diffusion 1.5 on WebGPU in float16 it adds 8
# kernels to the 201 of UNet and ControlNet, and 0.09 MB of WGSL; a second picture size adds 153, and 0.79 MB.
PROMPT_CHUNKS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", help=f"what to compile for: {', '.join(TARGETS)}")
    parser.add_argument(
        "--cpu",
        default=PORTABLE,
        metavar="NAME",
        help=f"for --target llvm, the processors to compile for: {PORTABLE}, one library for each instruction set of "
        f"this machine's family, of which the runtime takes the best that its processor has; {NATIVE}, only this "
        f"machine's best; or one of {', '.join(INSTRUCTION_SETS)}. For --target webgpu, the libraries for visitors "
        f"without a GPU: {PORTABLE}, {' and '.join(BROWSER_INSTRUCTION_SETS)}; one of them; or {NONE}; "
        "default: %(default)s",
    )
    parser.add_argument(
        "--model",
        default=BUNDLED_MODEL,
        help="a bundled model, a diffusers folder, a .safetensors or .ckpt file, or a hub id org/name[@revision]; "
        "default: circles",
    )
    parser.add_argument(
        "--controlnet",
        action="append",
        default=[],
        metavar="[NAME=]PATH[:TYPE]",
        help="a folder, a file or a hub id, also of a Control-LoRA; can be repeated: a picture uses one or several "
        "of them; default: those in the model's folder; default NAME: PATH's, canny for control_v11p_sd15_canny.pth; "
        "TYPE, which a union ControlNet needs: the kind of control image, as in union.safetensors:depth",
    )
    parser.add_argument(
        "--add-controlnet",
        action="append",
        default=[],
        metavar="[NAME=]PATH[:TYPE]",
        help="compile nothing, and add this ControlNet to the bundle or site --out, whose kernels and weights stay as "
        "they are; can be repeated; a Control-LoRA needs its base in --model",
    )
    parser.add_argument(
        "--vae",
        metavar="PATH",
        help="use this VAE instead of the model's: a folder, a file or a hub id of an AutoencoderKL or of a tiny "
        "autoencoder (taesd_decoder.safetensors, with taesd_encoder.safetensors beside it)",
    )
    parser.add_argument(
        "--preview-vae",
        metavar="PATH",
        help="add the decoder of this VAE, for sharp previews of every step: taesd_decoder.safetensors, or as --vae",
    )
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:WEIGHT]",
        help="merge this LoRA, LoHa, LoKr or DoRA into the weights; can be repeated, and is merged in this order; "
        "default weight: 1; FILE:unet=0.8,text_encoder=0.4 gives each part its own",
    )
    parser.add_argument(
        "--embedding",
        action="append",
        default=[],
        metavar="FILE[=WORD]",
        help="merge this textual inversion; prompts name it by WORD; can be repeated; "
        "default: the file's own word, or its name without suffix",
    )
    parser.add_argument(
        "--component",
        action="append",
        metavar="NAME",
        help=f"build only this component; can be repeated: {', '.join(COMPONENTS)}",
    )
    parser.add_argument(
        "--tokenizer", type=Path, metavar="FOLDER", help="default: the model's own; for a single file, CLIP's"
    )
    parser.add_argument(
        "--prediction-type",
        help=f"what the UNet predicts: {', '.join(PREDICTION_TYPES)}; default: what the model's scheduler says",
    )
    parser.add_argument(
        "--dtype",
        action="append",
        help=f"the library's dtype, {' or '.join(DTYPES)}; can be repeated; default: both for webgpu, else float32",
    )
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="[COMPONENT=]FORMAT",
        help=f"what the weights of matrix products and convolutions are stored in: {', '.join(WEIGHTS)}; can be "
        "repeated, for one component each. The bundle and its memory shrink, and the pictures change a little; mixed "
        "gives each layer 2 to 8 bits, within --budget; default: float16",
    )
    parser.add_argument(
        "--budget",
        metavar="SIZE",
        help="for --weights mixed: what all weights of the bundle take, as 850MB or 0.85GB, or the bits of a mixed "
        f"weight on average, as 4.5bits; default: {Budget()}",
    )
    parser.add_argument(
        "--calibrate",
        metavar="PROMPTS",
        help="with --weights: a prompt, or a text file with a prompt on each line. torch draws each in 4 steps first; "
        "weights are rounded, and biases corrected, so that outputs change least for what layers read then",
    )
    parser.add_argument(
        "--calibrate-image",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a control image for --calibrate; with several ControlNets, one for each, in their order; default: the "
        "outline of a circle",
    )
    parser.add_argument("--height", type=int, help="of the pictures, in pixels; default: the model's training size")
    parser.add_argument("--width", type=int, help="of the pictures, in pixels; default: the model's training size")
    parser.add_argument(
        "--size",
        action="append",
        default=[],
        metavar="WIDTHxHEIGHT",
        help="of the pictures, in pixels; can be repeated: the bundle draws all these sizes with the same weights, and "
        "the first is the default. --height and --width give one size",
    )
    parser.add_argument(
        "--prompt-chunks",
        type=int,
        default=PROMPT_CHUNKS,
        metavar="N",
        help="how many chunks of 75 tokens a prompt may have; the rest is cut. Each chunk adds kernels of "
        "cross-attention to the library, but no weights; default: %(default)s",
    )
    parser.add_argument(
        "--vae-tiling",
        nargs="?",
        const="",
        metavar="WIDTHxHEIGHT",
        help="decode and encode pictures larger than this, or than the first --size, in overlapping tiles of that "
        "size: less memory and a smaller library, but colors can differ a little from tile to tile",
    )
    parser.add_argument(
        "--deepcache",
        type=int,
        nargs="?",
        const=0,
        metavar="BRANCH",
        help="also compile a shallow UNet, which takes the features below a skip connection from an earlier step "
        "(DeepCache, arXiv 2312.00858): the option deepcache_interval then saves most of the time of most steps. "
        "BRANCH 0, the default, is the fastest; a higher one is nearer to the full picture",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="the bundle's folder; default: dist/<model>-<target>. "
        "The demo page of a webgpu bundle goes to dist/site, or "
        "with --out to OUT-site",
    )
    parser.add_argument(
        "--tuning-db",
        type=Path,
        default=TUNING_DB,
        metavar="FOLDER",
        help="tuning records, with one folder for each target; default: the records that come with this program",
    )
    parser.add_argument(
        "--tuning-family",
        metavar="NAME",
        help="use only the records of this family of GPUs, such as rdna3; default: what wins over all families",
    )
    parser.add_argument(
        "--dump-ir", type=Path, metavar="FOLDER", help="write the IRModule after each phase into FOLDER"
    )
    site = parser.add_argument_group("the site's list of models")
    site.add_argument(
        "--licence", default="", metavar="TEXT", help="of the model, such as Apache-2.0; default: what its card names"
    )
    site.add_argument(
        "--picture", type=Path, metavar="FILE", help="what the model draws; default: picture.png in the model's folder"
    )
    site.add_argument(
        "--mirror",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="a copy of the bundle on another host, which the page asks if this one has it not; can be repeated",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    check_packages(BUILD_PACKAGES)
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

    if options.target is None:
        raise UserError("--target", "none", f"one of {', '.join(TARGETS)}", "pass --target webgpu or --target llvm")
    if options.cpu != PORTABLE and options.target not in ("llvm", "webgpu"):
        wanted = "--target llvm or webgpu"
        raise UserError("--cpu", f"{options.cpu} with --target {options.target}", wanted, "leave --cpu out")
    if not options.tuning_db.is_dir():
        got, remedy = f"{options.tuning_db}, which is no folder", "leave it out for those of this program"
        raise UserError("--tuning-db", got, "a folder of tuning records", remedy)
    dtypes = options.dtype or (TARGETS[options.target].dtypes if options.target in TARGETS else ())
    sizes: list[tuple[int | None, int | None]] = [(options.height, options.width)]
    if options.size:
        if sizes != [(None, None)]:
            raise UserError("--size", "--height or --width beside it", "one of both ways", "pass --size alone")
        sizes = [parse_size(text) for text in options.size]
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
        height=sizes[0][0],
        width=sizes[0][1],
        other_sizes=tuple(parse_size(text) for text in options.size[1:]),
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
