"""Which shaders onnxruntime-web would launch on a GPU: recorded in Node without that GPU, and without computing.

The shapes, the dtype, and vendor, architecture and subgroup sizes of the adapter are those of the GPU, so that the peer
chooses the variants that it chooses there.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlc_controlnet.bench.compilers.spirv import driver_manifest
from mlc_controlnet.bench.operations.cases import Case
from mlc_controlnet.bench.operations.onnx_peer import export_onnx
from mlc_controlnet.bundle.json_record import from_json
from mlc_controlnet.errors import UserError
from mlc_controlnet.locations import WEB

AMD_ADAPTER = {
    "vendor": "amd",
    "architecture": "rdna-3",
    "device": "",
    "description": "",
    "isFallbackAdapter": False,
    "subgroupMinSize": 32,
    "subgroupMaxSize": 64,
}


@dataclass(frozen=True)
class PeerLaunch:
    """A launch: `Launch` of web/bench/compilers/record_peer.mjs.

    Attributes:
        uniforms: words of the uniform buffer.
        operand_bytes: bytes of all its tensors.
    """

    wgsl: str
    workgroups: tuple[int, ...]
    uniforms: tuple[int, ...]
    operand_bytes: int


def record_peer(cases: Sequence[Case], folder: Path) -> dict[str, list[PeerLaunch]]:
    """Export `cases` into `folder`; return the peer's launches of a call of each, by name.

    Raises UserError if a package or program is missing.
    """
    if not (WEB / "node_modules" / "onnxruntime-web").is_dir():
        raise UserError("web/node_modules", "no onnxruntime-web", "npm's packages", "run npm --prefix web ci")
    models = []
    for case in cases:
        export_onnx(case.module, case.inputs, folder / f"{case.name}.onnx")
        inputs = [{"dtype": str(i.dtype).removeprefix("torch."), "shape": list(i.shape)} for i in case.inputs]
        models.append({"name": case.name, "onnx": f"{case.name}.onnx", "inputs": inputs})
    job = {"adapter": AMD_ADAPTER, "models": models}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    environment = {**os.environ, "VK_DRIVER_FILES": str(driver_manifest("lvp")), "GALLIVM_PERF": "nopt"}
    command = ["node", "--no-warnings", "bench/compilers/record_peer.mjs", str(folder)]
    run = subprocess.run(command, cwd=WEB, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} in web/ exited with {run.returncode}: {run.stderr[-1000:]}")
    found = json.loads((folder / "launches.json").read_bytes())
    return {
        name: [from_json(PeerLaunch, launch, f"launches.json, {name}") for launch in launches]
        for name, launches in found.items()
    }
