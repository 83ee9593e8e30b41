"""What to build."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from mlc_controlnet.components import COMPONENTS
from mlc_controlnet.errors import UserError


@dataclass(frozen=True)
class TargetPreset:
    """How one `--target` is compiled.

    Attributes:
        device: what the runtime opens; the same as the TVM device kind.
        library_suffix: of the compiled library's file.
        tvm_target: TVM's target description.
        dtypes: a library each, unless the build asks for others. float16 takes half the memory in a browser; float32
            serves GPUs without shader-f16.
        tvm_host: the target of the code around the kernels; None where the target is its own host.
    """

    device: str
    library_suffix: str
    tvm_target: dict[str, object]
    dtypes: tuple[str, ...]
    tvm_host: dict[str, object] | None = None


# x86-64-v3 (AVX2, FMA) runs on every desktop and server processor since 2013; a library tuned on one then runs on all.
LLVM_TARGET: dict[str, object] = {"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 2}
THREADS: dict[str, object] = {"max_threads_per_block": 256, "max_num_threads": 256}
TARGETS: dict[str, TargetPreset] = {
    "webgpu": TargetPreset(
        device="webgpu",
        library_suffix=".wasm",
        tvm_target={"kind": "webgpu"},
        dtypes=("float16", "float32"),
        tvm_host={"kind": "llvm", "mtriple": "wasm32-unknown-unknown-wasm", "vector-width": 128},
    ),
    "llvm": TargetPreset(device="llvm", library_suffix=".so", tvm_target=LLVM_TARGET, dtypes=("float32",)),
    # Native GPUs: the kernels are those of WebGPU, with workgroups of 256 threads.
    "cuda": TargetPreset(
        device="cuda",
        library_suffix=".so",
        tvm_target={"kind": "cuda", "arch": "sm_80", "max_shared_memory_per_block": 48 * 1024, **THREADS},
        dtypes=("float16",),
        tvm_host=LLVM_TARGET,
    ),
    "rocm": TargetPreset(
        device="rocm",
        library_suffix=".so",
        tvm_target={"kind": "rocm", "mcpu": "gfx1100", "max_shared_memory_per_block": 48 * 1024, **THREADS},
        dtypes=("float16",),
        tvm_host=LLVM_TARGET,
    ),
    "metal": TargetPreset(
        device="metal",
        library_suffix=".dylib",
        tvm_target={"kind": "metal", "max_shared_memory_per_block": 32 * 1024, **THREADS},
        dtypes=("float16",),
        tvm_host={"kind": "llvm"},
    ),
    "opencl": TargetPreset(
        device="opencl",
        library_suffix=".so",
        tvm_target={"kind": "opencl", "max_shared_memory_per_block": 32 * 1024, **THREADS},
        dtypes=("float16",),
        tvm_host=LLVM_TARGET,
    ),
}
# Of stored weights and activations; sums are float32 in both.
DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class Defaults:
    """What a call of the pipeline takes where the caller says nothing: the model's own recommendation."""

    steps: int
    guidance_scale: float
    conditioning_scale: float


PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class LoraOption:
    """`FILE[:WEIGHT]` of the command line: a path or a hub id, and how much of it is merged."""

    file: str
    weight: float

    @classmethod
    def parse(cls, text: str) -> "LoraOption":
        """The last colon counts where a number follows it; a weight of 1 is meant where none does."""
        match = re.fullmatch(r"(.+):([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)", text)
        return cls(text, 1.0) if match is None else cls(match[1], float(match[2]))

    def __str__(self) -> str:
        return f"{self.file}:{self.weight:g}"


@dataclass(frozen=True)
class BuildConfig:
    """One build, resolved: printed before the work and kept in the manifest.

    Attributes:
        model: a bundled model's name, a folder in diffusers' layout, a single file, or a hub id org/name[@revision].
        target: a key of TARGETS.
        dtypes: what libraries store weights and activations in, one library each.
        every_dtype: whether a build fails where one of `dtypes` but not the first exceeds WebGPU's limits, or leaves it
            out with a notice.
        height, width: of the picture in pixels; None: what the model was trained on.
        out: the bundle's folder.
        tuning_db: the folder with a subfolder of records for each target.
        dump_ir: where to write the IRModule after each phase; None: nowhere.
        controlnet: a folder, a file or a hub id; None: the model's own.
        loras: merged into the weights.
        components: those to build.
        tokenizer: a folder with the tokenizer; None: the model's own, or CLIP's for a single file.
        prediction_type: one of PREDICTION_TYPES; None: what the model says.
    """

    model: str
    target: str
    dtypes: tuple[str, ...]
    out: Path
    tuning_db: Path
    every_dtype: bool = True
    height: int | None = None
    width: int | None = None
    dump_ir: Path | None = None
    controlnet: str | None = None
    loras: tuple[LoraOption, ...] = ()
    components: tuple[str, ...] = COMPONENTS
    tokenizer: Path | None = None
    prediction_type: str | None = None

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise UserError("--target", repr(self.target), f"one of {', '.join(TARGETS)}", "pass one of these")
        for dtype in self.dtypes:
            if dtype not in DTYPES:
                raise UserError("--dtype", repr(dtype), f"one of {', '.join(DTYPES)}", "pass one of these")
        for name in self.components:
            if name not in COMPONENTS:
                raise UserError("--component", repr(name), f"one of {', '.join(COMPONENTS)}", "pass one of these")
        if self.prediction_type not in (None, *PREDICTION_TYPES):
            wanted = f"one of {', '.join(PREDICTION_TYPES)}"
            raise UserError("--prediction-type", repr(self.prediction_type), wanted, "pass one of these")

    def for_target(self, target: str) -> "BuildConfig":
        """The same build for another target; the IR is dumped for the one that was asked for only."""
        return dataclasses.replace(self, target=target, dump_ir=self.dump_ir if target == self.target else None)

    @property
    def preset(self) -> TargetPreset:
        return TARGETS[self.target]
