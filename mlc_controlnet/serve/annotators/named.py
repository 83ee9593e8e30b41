"""Annotators that the operator names: `depth=FILE`, with options after commas, or `depth=controlnet_aux:FOLDER`."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from mlc_controlnet.errors import UserError, check_one_of
from mlc_controlnet.serve.annotators.network import RANGES, load_network
from mlc_controlnet.serve.annotators.outputs import READERS, far_depth

Annotator = Callable[[Image.Image], Image.Image]

ALIASES = {"pose": "openpose", "segmentation": "seg", "hed": "softedge"}
SYNTAX = "NAME=FILE[,size=N][,range=RANGE][,far] with a NAME of depth, seg, openpose or softedge"
AUX = "controlnet_aux:"
# Its detectors that read weights from a folder, by our names.
AUX_DETECTORS = {
    "depth": "MidasDetector",
    "openpose": "OpenposeDetector",
    "softedge": "HEDdetector",
    "lineart": "LineartDetector",
    "normalbae": "NormalBaeDetector",
    "mlsd": "MLSDdetector",
}


def name_annotators(texts: Sequence[str]) -> dict[str, Annotator]:
    """Load what `--annotator` names, by ControlNet's names. Raises UserError for text or a file that cannot be used."""
    return dict(_name_annotator(text) for text in texts)


def describe(texts: Sequence[str]) -> list[str]:
    """Return a line for each file, with its hash: what the server runs."""
    lines = []
    for text in texts:
        name, _, rest = text.partition("=")
        path = Path(rest.split(",")[0])
        if path.is_file():
            with path.open("rb") as file:
                lines.append(f"annotator {name}: {path}, sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}")
    return lines


def needs_torch(text: str) -> bool:
    """Whether an annotator runs in torch, which the server otherwise leaves out."""
    return not text.partition("=")[2].split(",")[0].endswith(".onnx")


def _name_annotator(text: str) -> tuple[str, Annotator]:
    name, separator, rest = text.partition("=")
    name = ALIASES.get(name, name)
    if not separator or not rest:
        raise UserError("--annotator", repr(text), SYNTAX, "for example depth=midas.onnx")
    if rest.startswith(AUX):
        return name, one_at_a_time(_aux_detector(name, rest.removeprefix(AUX)))
    file, *options = rest.split(",")
    check_one_of("--annotator", name, READERS)
    reader, side = READERS[name], None
    pixel_range = "bytes" if name == "softedge" else "imagenet"
    for option in options:
        key, _, value = option.partition("=")
        if key == "size" and value.isdecimal() and 32 <= int(value) <= 2048:
            side = int(value)
        elif key == "range" and value in RANGES:
            pixel_range = value
        elif option == "far" and name == "depth":
            reader = far_depth
        else:
            wanted = f"size=32 to 2048, range={'|'.join(RANGES)}, or far after depth"
            raise UserError(f"--annotator {name}", repr(option), wanted, "correct it or leave it out")
    network = load_network(Path(file))
    return name, one_at_a_time(lambda picture: reader(network(picture, pixel_range, side), picture.size))


def one_at_a_time(annotator: Annotator) -> Annotator:
    """Let requests wait for each other: a network takes all cores and much memory."""
    lock = threading.Lock()

    def annotate(picture: Image.Image) -> Image.Image:
        with lock:
            try:
                return annotator(picture)
            except UserError:
                raise
            except Exception as error:  # of onnxruntime, torch or controlnet_aux
                reason = " ".join(str(error).split())[:160]
                raise UserError(
                    "annotator", f"a network that fails: {reason}", "a control image", "try another"
                ) from None

    return annotate


def _aux_detector(name: str, folder: str) -> Annotator:
    """Return a detector of controlnet_aux, with weights from a folder: nothing is downloaded."""
    check_one_of("--annotator ...=controlnet_aux", name, AUX_DETECTORS)
    if not Path(folder).is_dir():
        raise UserError(
            f"--annotator {name}",
            f"no folder {folder!r}",
            "the weights, as controlnet_aux has them",
            "see docs/service.md",
        )
    try:
        import controlnet_aux
    except ImportError:
        raise UserError(
            "package controlnet_aux", "a Python without it", "controlnet_aux", "pip install controlnet_aux"
        ) from None
    try:
        detector = getattr(controlnet_aux, AUX_DETECTORS[name]).from_pretrained(folder)
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"--annotator {name}", f"weights that fail: {reason}", "those of this detector", "see docs/service.md"
        ) from None
    return lambda picture: detector(picture.convert("RGB")).resize(picture.size)
