"""Lets Dawn open an AMD chip that is not there: Tint takes features of WGSL only from a device that has them."""

import json
from pathlib import Path

from mlc_controlnet.bench.compilers.chips import Chip
from mlc_controlnet.bench.compilers.spirv import driver_manifest
from mlc_controlnet.toolchain.wasm_runtime import user_cache_folder
from mlc_controlnet.toolchain.zig import find_zig

LAYER = Path(__file__).with_name("null_device_layer.c")
NAME = "VK_LAYER_mlc_controlnet_null_device"


def null_device(chip: Chip, folder: Path) -> dict[str, str]:
    """Build the layer in `folder`; return the environment in which Vulkan's only adapter is `chip`.

    Raises UserError if Mesa's RADV or the ziglang wheel is missing.
    """
    library = folder / "null_device_layer.so"
    flags = ["cc", "-shared", "-fPIC", "-O2", "-fvisibility=hidden"]
    find_zig().run([*flags, "-o", library, LAYER], build_cache=user_cache_folder() / "null-device-layer")
    layer = {
        "name": NAME,
        "type": "GLOBAL",
        "library_path": str(library),
        "api_version": "1.3.0",
        "implementation_version": "1",
        "description": "commands do nothing",
    }
    manifest = {"file_format_version": "1.1.2", "layer": layer}
    (folder / f"{NAME}.json").write_text(json.dumps(manifest), encoding="utf-8")
    return {
        "RADV_FORCE_FAMILY": chip.architecture,
        "VK_DRIVER_FILES": str(driver_manifest("radeon")),
        "VK_INSTANCE_LAYERS": NAME,
        "VK_LAYER_PATH": str(folder),
    }
