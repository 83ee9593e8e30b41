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

import torch

from mlc_controlnet.bench.compilers.spirv import driver_manifest
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
class PeerModel:
    """A model to record.

    Attributes:
        onnx: name of its file in the job's folder.
        inputs: of a call; only shapes and dtypes matter.
        weights: names of the files with its weights, if they are not in `onnx`.
    """

    name: str
    onnx: str
    inputs: tuple[torch.Tensor, ...]
    weights: tuple[str, ...] = ()


@dataclass(frozen=True)
class PeerLaunch:
    """A launch: `Launch` of web/bench/compilers/record_peer.mjs.

    Attributes:
        program: what the peer calls the shader.
        uniforms: words of the uniform buffer.
        operand_bytes: bytes of all its tensors.
    """

    program: str
    wgsl: str
    workgroups: tuple[int, ...]
    uniforms: tuple[int, ...]
    operand_bytes: int


def record_peer(models: Sequence[PeerModel], folder: Path) -> dict[str, list[PeerLaunch]]:
    """Return the peer's launches of a call of each model in `folder`, by name; a model that it refuses has none.

    Raises UserError if a package or program is missing.
    """
    if not (WEB / "node_modules" / "onnxruntime-web").is_dir():
        raise UserError("web/node_modules", "no onnxruntime-web", "npm's packages", "run npm --prefix web ci")
    job = {"adapter": AMD_ADAPTER, "models": [_description(model) for model in models]}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    environment = {**os.environ, "VK_DRIVER_FILES": str(driver_manifest("lvp")), "GALLIVM_PERF": "nopt"}
    command = ["node", "--liftoff-only", "--no-warnings", "bench/compilers/record_peer.mjs", str(folder)]
    run = subprocess.run(command, cwd=WEB, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} in web/ exited with {run.returncode}: {run.stderr[-1000:]}")
    found = json.loads((folder / "launches.json").read_bytes())
    return {
        name: [from_json(PeerLaunch, launch, f"launches.json, {name}") for launch in launches]
        for name, launches in found.items()
    }


def _description(model: PeerModel) -> dict[str, object]:
    inputs = [{"dtype": str(one.dtype).removeprefix("torch."), "shape": list(one.shape)} for one in model.inputs]
    return {"name": model.name, "onnx": model.onnx, "weights": list(model.weights), "inputs": inputs}
