"""The options that a bundle must be built for: picture sizes and DeepCache.

Twin: web/src/engine/variant_options.ts.
"""

from typing import TYPE_CHECKING

from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.components import UNET_SHALLOW
from mlc_controlnet.errors import UserError

if TYPE_CHECKING:
    from mlc_controlnet.runtime.request import Settings


def check_variant(settings: "Settings", manifest: Manifest) -> None:
    """Raise UserError if the bundle does not draw this size, or has no shallow UNet."""
    check_size("size", settings.height, settings.width, manifest)
    if settings.deepcache_interval < 1:
        remedy = "leave it out to compute every step whole"
        raise UserError("deepcache interval", str(settings.deepcache_interval), "1 or more", remedy)
    if settings.deepcache_interval > 1 and UNET_SHALLOW not in manifest.components:
        got, wanted = str(settings.deepcache_interval), "1, because this bundle has no shallow UNet"
        raise UserError("deepcache interval", got, wanted, "build the bundle again with --deepcache, or leave it out")


def check_size(subject: str, height: int, width: int, manifest: Manifest) -> None:
    """Raise UserError if the bundle does not draw pictures of this size."""
    if (height, width) not in manifest.sizes:
        sizes = ", ".join(f"{w}x{h}" for h, w in manifest.sizes)
        remedy = f"choose one of them, or build the bundle with --size {width}x{height} too"
        raise UserError(subject, f"{width}x{height}", f"one of this bundle's, width x height: {sizes}", remedy)
