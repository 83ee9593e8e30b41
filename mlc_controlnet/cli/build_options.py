"""The command line of `build`: the options, in the order in which `--help` lists them."""

import argparse
from pathlib import Path

from mlc_controlnet.components import COMPONENTS
from mlc_controlnet.config import DTYPES, PREDICTION_TYPES, TARGETS, WEIGHTS, Budget
from mlc_controlnet.instruction_sets import BROWSER_INSTRUCTION_SETS, INSTRUCTION_SETS, NATIVE, NONE, PORTABLE
from mlc_controlnet.locations import TUNING_DB

BUNDLED_MODEL = "circles"

# A second chunk serves nearly all prompts that people share. For Stable Diffusion 1.5 on WebGPU in float16 it adds 8
# kernels to the 201 of UNet and ControlNet, and 0.09 MB of WGSL; a second picture size adds 153, and 0.79 MB.
PROMPT_CHUNKS = 2


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add every option of `build`."""
    _add_processors(parser)
    _add_model(parser)
    _add_parts(parser)
    _add_weights(parser)
    _add_pictures(parser)
    _add_output(parser)
    _add_site(parser)


def _add_processors(parser: argparse.ArgumentParser) -> None:
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


def _add_model(parser: argparse.ArgumentParser) -> None:
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


def _add_parts(parser: argparse.ArgumentParser) -> None:
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


def _add_weights(parser: argparse.ArgumentParser) -> None:
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


def _add_pictures(parser: argparse.ArgumentParser) -> None:
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


def _add_output(parser: argparse.ArgumentParser) -> None:
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


def _add_site(parser: argparse.ArgumentParser) -> None:
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
