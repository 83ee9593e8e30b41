"""`generate`: draw a picture with a native bundle."""

import argparse
import sys
from pathlib import Path

from mlc_controlnet.cli.defaults import BUNDLE as DEFAULT_BUNDLE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", required=True, help="for example: gold circle with navy background")
    parser.add_argument("--control-image", required=True, type=Path, help="the picture that conditions")
    parser.add_argument(
        "--invert",
        action="store_true",
        help="exchange black and white in the control image: dark lines on white become white lines on black",
    )
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
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from mlc_controlnet.images.lines import invert
    from mlc_controlnet.images.read import read_image
    from mlc_controlnet.runtime.control_image import SUBJECT
    from mlc_controlnet.runtime.inpainting import IMAGE, MASK_IMAGE
    from mlc_controlnet.runtime.pipeline import ControlNetPipeline
    from mlc_controlnet.runtime.png import check_output_path, write_png

    check_output_path(options.output)
    control_image = read_image(options.control_image, SUBJECT)
    if options.invert:
        control_image = invert(control_image)
    image = None if options.image is None else read_image(options.image, IMAGE)
    mask_image = None if options.mask_image is None else read_image(options.mask_image, MASK_IMAGE)
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
