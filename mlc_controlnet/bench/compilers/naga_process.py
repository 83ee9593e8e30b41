"""Compiles every WGSL file of a folder with naga, the compiler of Firefox, in a process of its own.

    python naga_process.py FOLDER

Prints {"file.wgsl": "error"} for the files that naga rejects. Needs the package wgpu and any Vulkan adapter.
"""

import json
import sys
from pathlib import Path

WORKGROUP_BYTES = 32768


def main() -> None:
    """Compile the files of the folder that the command line names."""
    import wgpu

    adapter = wgpu.gpu.request_adapter_sync(power_preference="high-performance")
    features = {"shader-f16"} & set(adapter.features)
    limits = {"max-compute-workgroup-storage-size": WORKGROUP_BYTES}
    device = adapter.request_device_sync(required_features=features, required_limits=limits)
    rejected = {}
    for file in sorted(Path(sys.argv[1]).glob("*.wgsl")):
        code = file.read_text(encoding="utf-8")
        try:
            device.create_shader_module(code=code)
        except wgpu.GPUError as error:
            rejected[file.name] = " ".join(str(error).split())[:300]
    print(json.dumps(rejected))


if __name__ == "__main__":
    main()
