"""`generate`: draw a picture with a native bundle."""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlc_controlnet.cli.defaults import BUNDLE as DEFAULT_BUNDLE
from mlc_controlnet.errors import UserError, print_notice
from mlc_controlnet.runtime.request import OPTIONS

if TYPE_CHECKING:
    from tqdm import tqdm

    from mlc_controlnet.bundle.reader import Bundle
    from mlc_controlnet.runtime.denoising import Step
    from mlc_controlnet.runtime.request import GenerateRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    picture = parser.add_argument_group("the picture")
    for name, option in OPTIONS.items():
        flag = f"--{name.replace('_', '-')}"
        if not option.metavar:
            picture.add_argument(flag, action="store_true", default=None, help=option.help)
            continue
        picture.add_argument(flag, type=option.parse, metavar=option.metavar, help=option.help)
    picture.add_argument(
        "--num-images-per-prompt",
        type=int,
        default=1,
        metavar="N",
        help="draw N pictures, of consecutive seeds: out-1.png, out-2.png, ... (default: 1)",
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--control-image",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="the picture that conditions; with several ControlNets, one for each, in their order",
    )
    files.add_argument(
        "--invert",
        action="store_true",
        help="exchange black and white in the control image: dark lines on white become white lines on black",
    )
    files.add_argument(
        "--image", type=Path, metavar="FILE", help="the picture to start from, or with a mask to repaint"
    )
    files.add_argument(
        "--mask-image",
        type=Path,
        metavar="FILE",
        help="a picture that is white where --image is repainted; the rest keeps its pixels",
    )
    files.add_argument(
        "--settings-from",
        type=Path,
        metavar="FILE",
        help="draw as this PNG file was drawn, by this program or Stable Diffusion web UI; options that are given as "
        "well come before its own",
    )
    files.add_argument(
        "--output", type=Path, metavar="FILE", default=Path("out.png"), help="PNG file to write (default: out.png)"
    )
    files.add_argument(
        "--bundle",
        type=Path,
        metavar="FOLDER",
        default=DEFAULT_BUNDLE,
        help=f"a native bundle (default: {DEFAULT_BUNDLE})",
    )
    device = parser.add_argument_group("the device")
    device.add_argument("--device", help="llvm, cuda, ... (default: the device that the bundle was built for)")
    device.add_argument(
        "--reduced-memory",
        action="store_true",
        help="keep fewer weights on the device: a third less device memory, slower, the same picture",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from mlc_controlnet.bundle.reader import read_bundle
    from mlc_controlnet.machine import describe_processor
    from mlc_controlnet.runtime.batch import seeds_of
    from mlc_controlnet.runtime.pipeline import ControlNetPipeline
    from mlc_controlnet.runtime.png import check_output_path, write_png

    given = {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}
    chosen = _complete({**_restore(options.settings_from), **given})
    seeds = seeds_of(chosen.get("seed"), options.num_images_per_prompt)
    outputs = [_numbered(options.output, i, len(seeds)) for i in range(len(seeds))]
    for output in outputs:
        check_output_path(output)
    request = _request_of(chosen, options)
    requests = [dataclasses.replace(request, seed=seed) for seed in seeds]
    bundle = read_bundle(options.bundle)
    _check(requests, bundle)
    pipeline = ControlNetPipeline.from_bundle(bundle, options.device, options.reduced_memory)
    if pipeline.engine.library.instruction_set:
        print(f"{describe_processor()}: library for {pipeline.engine.library.instruction_set}", file=sys.stderr)
    told: set[str] = set()
    with _Progress() as progress:
        for output, drawn in zip(outputs, pipeline.stream(requests, progress.show), strict=True):
            progress.end()
            for notice in drawn.notices:
                if notice not in told:
                    print_notice(notice)
            told.update(drawn.notices)
            write_png(output, drawn.image, drawn.metadata)
            print(f"{output}: seed {drawn.settings.seed}", flush=True)


def _request_of(chosen: Mapping[str, Any], options: argparse.Namespace) -> "GenerateRequest":
    """Read the pictures of a request. Raises UserError for one that cannot be used."""
    from mlc_controlnet.images.lines import invert
    from mlc_controlnet.images.read import read_image
    from mlc_controlnet.runtime.control_image import SUBJECT
    from mlc_controlnet.runtime.inpainting import IMAGE, MASK_IMAGE
    from mlc_controlnet.runtime.request import GenerateRequest

    control_images = [read_image(path, SUBJECT) for path in options.control_image]
    return GenerateRequest(
        **chosen,
        control_image=[invert(image) for image in control_images] if options.invert else control_images,
        image=None if options.image is None else read_image(options.image, IMAGE),
        mask_image=None if options.mask_image is None else read_image(options.mask_image, MASK_IMAGE),
    )


def _check(requests: "Sequence[GenerateRequest]", bundle: "Bundle") -> None:
    """Raise UserError for an option that the bundle cannot draw with, before its weights are loaded."""
    from mlc_controlnet.bundle.sampler_description import read_samplers
    from mlc_controlnet.runtime.inpainting import check_given
    from mlc_controlnet.runtime.resolve import resolve

    bundle.manifest.check_can_draw(str(bundle.path))
    samplers = read_samplers(bundle)
    for request in requests:
        resolve(request, bundle.manifest, samplers)
        check_given(request.image, request.mask_image, bundle.manifest)


class _Progress:
    """A bar of the steps of a picture, on stderr. A picture that cannot be used is an error, and no bar appears."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def show(self, step: "Step") -> None:
        """Count a step."""
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=step.count, unit="step", file=sys.stderr)
        self._bar.update()

    def end(self) -> None:
        """Close the bar of this picture; the next one gets its own."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def _restore(path: Path | None) -> Mapping[str, Any]:
    """Read the options of a picture that was drawn earlier. Raises UserError for a file without any."""
    from mlc_controlnet.runtime.metadata import read_settings

    if path is None:
        return {}
    if not path.is_file():
        raise UserError(f"--settings-from {path}", "no such file", "a PNG file", "check the path")
    restored = read_settings(path.read_bytes(), f"--settings-from {path}")
    for notice in restored.notices:
        print_notice(notice)
    return restored.options


def _complete(options: dict[str, Any]) -> dict[str, Any]:
    """Return `options` if nothing is missing that has no default; raise UserError otherwise."""
    for name, option in OPTIONS.items():
        if option.default is None and name not in options:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(flag, "none", option.help, f"pass {flag} {option.metavar}, or --settings-from FILE")
    return options


def _numbered(output: Path, index: int, count: int) -> Path:
    """Return the name of picture `index` of `count`: out.png, or out-1.png, out-2.png, ..."""
    return output if count == 1 else output.with_stem(f"{output.stem}-{index + 1}")
