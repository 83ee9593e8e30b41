"""What the networks of annotators return, as control images: depth, soft edges, segmentation and poses."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.serve.annotators.ade20k import COLORS
from mlc_controlnet.serve.annotators.skeleton import draw_skeleton, to_openpose

Size = tuple[int, int]  # width, height
Reader = Callable[[Sequence[np.ndarray], Size], Image.Image]


def depth(outputs: Sequence[np.ndarray], size: Size) -> Image.Image:
    """[1, (1,) h, w], more for what is nearer, as MiDaS, DPT and Depth Anything have it -> the nearest white."""
    return _between_ends(_plane("depth", outputs[0]), size)


def far_depth(outputs: Sequence[np.ndarray], size: Size) -> Image.Image:
    """[1, (1,) h, w], more for what is farther, as ZoeDepth and other metric networks have it -> the nearest white."""
    return _between_ends(-_plane("depth", outputs[0]), size)


def soft_edge(outputs: Sequence[np.ndarray], size: Size) -> Image.Image:
    """One [1, 1, h, w] or several, as HED has its scales -> their mean: edges white. Logits go through a sigmoid."""
    planes = [_resized(_plane("softedge", output), size) for output in outputs]
    mean = np.mean(planes, axis=0)
    if min(output.min() for output in outputs) < 0 or max(output.max() for output in outputs) > 1:
        mean = 1 / (1 + np.exp(-mean))
    return _to_grey(255 * mean)


def segmentation(outputs: Sequence[np.ndarray], size: Size) -> Image.Image:
    """[1, K, h, w] logits or [1, (1,) h, w] labels, of ADE20K's 150 classes -> its colours; other labels are black."""
    scores = outputs[0]
    if scores.ndim == 4 and scores.shape[1] > 1:
        labels = scores[0].argmax(axis=0)
    else:
        labels = np.rint(_plane("seg", scores)).astype(np.int64)
    colored = np.zeros((*labels.shape, 3), np.uint8)
    known = (labels >= 0) & (labels < len(COLORS))
    colored[known] = COLORS[labels[known]]
    return Image.fromarray(colored).resize(size, Image.Resampling.NEAREST)


def pose(outputs: Sequence[np.ndarray], size: Size) -> Image.Image:
    """Heat maps [1, K, h, w], or [..., K, 3] with y, x and score, of one person's joints -> OpenPose's drawing.

    K is 17 in COCO's order, or 18 and more in OpenPose's.
    """
    found = outputs[0]
    if found.ndim == 4 and 17 <= found.shape[1] <= 25 and found.shape[3] > 3:
        return draw_skeleton(to_openpose(_peaks(found[0])), size)
    if found.ndim >= 2 and found.shape[-1] == 3 and 17 <= found.shape[-2] <= 25:
        y, x, score = found.reshape(-1, found.shape[-2], 3)[0].T
        return draw_skeleton(to_openpose(np.stack([x, y, score], axis=1)), size)
    raise _misfit("openpose", found, "heat maps [1, 17 or 18, h, w] or joints [..., 17 or 18, 3]")


READERS: dict[str, Reader] = {
    "depth": depth,
    "softedge": soft_edge,
    "seg": segmentation,
    "openpose": pose,
}


def _peaks(maps: np.ndarray) -> np.ndarray:
    """[K, h, w] -> [K, 3]: x and y in 0..1 of the largest value, and the value."""
    joints, height, width = maps.shape
    flat = maps.reshape(joints, -1)
    best = flat.argmax(axis=1)
    return np.stack([(best % width + 0.5) / width, (best // width + 0.5) / height, flat.max(axis=1)], axis=1)


def _plane(name: str, output: np.ndarray) -> np.ndarray:
    """Return [h, w], float32."""
    plane = output.squeeze()
    if plane.ndim != 2 or not np.isfinite(plane.astype(np.float64)).all():
        raise _misfit(name, output, "finite numbers, [1, h, w] or [1, 1, h, w]")
    return plane.astype(np.float32)


def _misfit(name: str, output: np.ndarray, wanted: str) -> UserError:
    got = f"{output.dtype}{list(output.shape)} of its network"
    return UserError(f"annotator {name}", got, wanted, "name a network for this annotator")


def _between_ends(values: np.ndarray, size: Size) -> Image.Image:
    resized = _resized(values, size)
    low, high = float(resized.min()), float(resized.max())
    return _to_grey(255 * (resized - low) / max(high - low, 1e-12))


def _resized(values: np.ndarray, size: Size) -> np.ndarray:
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))


def _to_grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(values.clip(0, 255)).astype(np.uint8))
