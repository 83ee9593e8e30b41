"""The configuration of a build: its targets and its options."""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlc_controlnet.components import COMPONENTS, DRAWING, kind_of
from mlc_controlnet.errors import UserError, check_one_of
from mlc_controlnet.instruction_sets import ALL_INSTRUCTION_SETS, INSTRUCTION_SETS


@dataclass(frozen=True)
class TargetPreset:
    """The options with which one `--target` is compiled.

    Attributes:
        device: the kind of device that the runtime opens, by TVM's name.
        library_suffix: the suffix of the compiled library's file.
        tvm_target: TVM's target description; for llvm, INSTRUCTION_SETS has one for each library.
        dtypes: the dtypes of the libraries, one library for each, unless the build asks for others. A float16 library
            needs half the memory; a float32 library serves GPUs without shader-f16.
        tvm_host: the target of the code around the kernels; None if the target is its own host.
    """

    device: str
    library_suffix: str
    tvm_target: dict[str, object]
    dtypes: tuple[str, ...]
    tvm_host: dict[str, object] | None = None


# Every desktop and server processor since 2013 runs x86-64-v3 (AVX2, FMA).
LLVM_TARGET: dict[str, object] = INSTRUCTION_SETS["x86-64-v3"].tvm_target
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
    # Native GPUs run the kernels of WebGPU, with workgroups of 256 threads.
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
# A library that a browser's processor runs, beside those of target webgpu and over the same weights.
BROWSER_PROCESSOR = TargetPreset(device="wasm", library_suffix=".wasm", tvm_target={}, dtypes=("float32",))
# The dtypes of stored weights and activations. Sums are float32 with both.
DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class Defaults:
    """The settings that the model recommends. The pipeline uses them if the caller passes none."""

    steps: int
    guidance_scale: float
    conditioning_scale: float


# A UNet predicts the noise, or the velocity of arXiv 2202.00512.
PREDICTION_TYPES = ("epsilon", "v_prediction")


# What weights are stored in, and how many bits a number takes. Kernels decode them as they read them.
WEIGHTS = ("float16", "int8", "int4", "palette6", "palette4", "mixed")


@dataclass(frozen=True)
class WeightsOption:
    """What weights are stored in: `[COMPONENT=]FORMAT` of the command line.

    Attributes:
        format: one of WEIGHTS.
        component: one of COMPONENTS, and its further ones: controlnet_2 is a controlnet; None: every one.
    """

    format: str
    component: str | None = None

    @classmethod
    def parse(cls, text: str) -> "WeightsOption":
        """Split at the first `=`.

        Raises:
            UserError: the format or the component is unknown.
        """
        component, given, name = text.rpartition("=")
        check_one_of(f"--weights {text}" if given else "--weights", name, WEIGHTS)
        if given:
            check_one_of(f"--weights {text}: component", component, COMPONENTS)
        return cls(name, component if given else None)

    def __str__(self) -> str:
        return self.format if self.component is None else f"{self.component}={self.format}"


@dataclass(frozen=True)
class Budget:
    """What `--weights mixed` may take: `850MB`, `0.85GB` or `4.5bits` of the command line.

    Attributes:
        bytes: of all weights of the bundle; None: `bits` counts.
        bits: of each number of the weights that are mixed, on average, with their tables.
    """

    bytes: int | None = None
    bits: float = 4.5

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read a number and its unit, decimal megabytes or gigabytes, or bits.

        Raises:
            UserError: the text is not of this form, or the number is not above 0.
        """
        found = _BUDGET.fullmatch(text.strip().lower())
        number = float(found["number"]) if found else 0.0
        if found is None or number <= 0:
            raise UserError("--budget", repr(text), "850MB, 0.85GB or 4.5bits", "write it so")
        if found["unit"].startswith("bit"):
            return cls(bits=number)
        return cls(round(number * {"mb": 10**6, "gb": 10**9}[found["unit"]]))

    def __str__(self) -> str:
        return f"{self.bits:g}bits" if self.bytes is None else f"{self.bytes / 1e6:g}MB"


@dataclass(frozen=True)
class CalibrationOption:
    """The pictures that `--calibrate` draws, to see what layers read.

    Attributes:
        prompts: one at least; none is blank.
        control_images: files, one for each ControlNet in their order; (): outlines of circles.
    """

    prompts: tuple[str, ...]
    control_images: tuple[Path, ...] = ()

    def __str__(self) -> str:
        count = len(self.prompts)
        images = f", control images {', '.join(map(str, self.control_images))}" if self.control_images else ""
        return f"{count} prompt{'s' if count > 1 else ''}{images}"


_BUDGET = re.compile(r"(?P<number>[0-9]{1,6}(\.[0-9]{1,6})?) ?(?P<unit>mb|gb|bits?)")


@dataclass(frozen=True)
class ControlNetOption:
    """A ControlNet to build: `[NAME=]PATH[:TYPE]` of the command line.

    Attributes:
        path: a folder, a file or a hub id.
        name: its name in the bundle; None: the control type, or made from `path`.
        control_type: the kind of control image that a union ControlNet is to read; "" for any other ControlNet.
    """

    path: str
    name: str | None = None
    control_type: str = ""

    @classmethod
    def parse(cls, text: str) -> "ControlNetOption":
        """Split at the first `=` if a name precedes it, and at the last colon if a word follows it.

        Neither belongs to the path then, unless there is a file or folder of that name.
        """
        if Path(text).exists():
            return cls(text)
        named = _NAMED_PATH.fullmatch(text)
        path, name = (text, None) if named is None else (named["path"], named["name"])
        typed = None if Path(path).exists() else _TYPED_PATH.fullmatch(path)
        return cls(path, name) if typed is None else cls(typed["path"], name, typed["type"])


_NAMED_PATH = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_-]*)=(?P<path>.+)")
_TYPED_PATH = re.compile(r"(?P<path>..+):(?P<type>[A-Za-z][A-Za-z_]*)")  # C:canny is a path


# The parts of a model that a LoRA changes.
LORA_PARTS = ("text_encoder", "text_encoder_2", "unet")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?")


@dataclass(frozen=True)
class LoraOption:
    """A LoRA to merge: `FILE[:WEIGHT]` of the command line, or `FILE:PART=WEIGHT[,PART=WEIGHT]`.

    Attributes:
        file: a path or a hub id.
        weight: of every part that `weights` does not name.
        weights: part of LORA_PARTS -> its own weight.
    """

    file: str
    weight: float = 1.0
    weights: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "LoraOption":
        """Split at the last colon if a number or weights of parts follow it. Without them the weight is 1.

        Raises:
            UserError: a weight is not a finite number, or a part is unknown or named twice.
        """
        file, _, end = text.rpartition(":")
        if file and _NUMBER.fullmatch(end):
            return cls(file, _weight(text, end))
        if not file or "=" not in end or "/" in end or "\\" in end:  # the colon is part of a name, as in C:/FILE
            return cls(text)
        weights: dict[str, float] = {}
        for item in end.split(","):
            part, _, number = (word.strip() for word in item.partition("="))
            check_one_of(f"--lora {text}: part", part, LORA_PARTS)
            if part in weights:
                raise UserError(f"--lora {text}", f"{part} twice", "one weight for each part", "remove one")
            weights[part] = _weight(text, number)
        return cls(file, weights=weights)

    def weight_of(self, part: str) -> float:
        """Return the weight of one of LORA_PARTS."""
        return self.weights.get(part, self.weight)

    def __str__(self) -> str:
        named = ",".join(f"{part}={weight:g}" for part, weight in self.weights.items())
        return f"{self.file}:{named or format(self.weight, 'g')}"


@dataclass(frozen=True)
class EmbeddingOption:
    """A textual inversion to merge: `FILE[=WORD]` of the command line.

    Attributes:
        file: a path or a hub id.
        token: its word in prompts; None: the file's own word or name.
    """

    file: str
    token: str | None = None

    @classmethod
    def parse(cls, text: str) -> "EmbeddingOption":
        """Split at the last `=`, unless a file of the whole name exists."""
        file, _, token = text.rpartition("=")
        return cls(file, token) if file and not Path(text).exists() else cls(text)

    def __str__(self) -> str:
        return self.file if self.token is None else f"{self.file}={self.token}"


def _weight(option: str, text: str) -> float:
    weight = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(weight):
        raise UserError(f"--lora {option}", f"weight {text!r}", "a number, such as 0.8", "correct it")
    return weight


@dataclass(frozen=True)
class BuildConfig:
    """The resolved configuration of one build. The build prints it first.

    Attributes:
        model: a bundled model's name, a folder in diffusers' layout, a single file, or a hub id org/name[@revision].
        target: a key of TARGETS.
        dtypes: the dtypes of weights and activations, one library for each.
        instruction_sets: keys of INSTRUCTION_SETS: an llvm bundle has a library for each; none: one for the
            best that this machine's processor has. Of BROWSER_INSTRUCTION_SETS: a webgpu bundle has a library for
            each, which draws without a GPU. Other bundles ignore them.
        every_dtype: whether the build fails if a dtype after the first exceeds WebGPU's limits. If False, the build
            leaves that dtype out with a notice.
        height, width: the size of pictures in pixels; None: the size that the model was trained on.
        other_sizes: height and width of other pictures in pixels, which the same bundle serves.
        prompt_chunks: the largest number of chunks of a prompt, 75 tokens each, that the pipeline reads.
        cached_branch: the skip connection of DeepCache (arXiv 2312.00858); None: no shallow UNet.
        vae_tile: with `tiles_vae`, height and width of a tile in pixels; None: the first size.
        tiles_vae: whether pictures larger than the first size go through its VAE in tiles, without one of their own.
        out: the bundle's folder.
        tuning_db: the folder with a subfolder of records for each target.
        tuning_family: the family of GPUs whose records count; None: those that win over all families.
        dump_ir: the folder to write the IRModule to after each phase; None: do not write it.
        controlnets: several share the base model; none: the model's own.
        vae: a folder, a file or a hub id; None: the model's own.
        preview_vae: a folder, a file or a hub id of the VAE whose decoder shows previews; None: no such decoder.
        loras: the LoRAs to merge into the weights.
        embeddings: the textual inversions to merge into the text encoder.
        components: the components to build.
        tokenizer: a folder with the tokenizer; None: the model's own, or CLIP's for a single file.
        prediction_type: one of PREDICTION_TYPES; None for the model's own.
        weights: what weights are stored in; the last option that names a component counts, and float16 if none does.
        budget: of weights that are mixed; None: `Budget()`'s.
        calibration: what is drawn before weights are rounded; None: nothing.
    """

    model: str
    target: str
    dtypes: tuple[str, ...]
    out: Path
    tuning_db: Path
    instruction_sets: tuple[str, ...] = ()
    every_dtype: bool = True
    height: int | None = None
    width: int | None = None
    other_sizes: tuple[tuple[int, int], ...] = ()
    prompt_chunks: int = 1
    cached_branch: int | None = None
    tiles_vae: bool = False
    vae_tile: tuple[int, int] | None = None
    dump_ir: Path | None = None
    controlnets: tuple[ControlNetOption, ...] = ()
    vae: str | None = None
    preview_vae: str | None = None
    loras: tuple[LoraOption, ...] = ()
    embeddings: tuple[EmbeddingOption, ...] = ()
    components: tuple[str, ...] = COMPONENTS
    tokenizer: Path | None = None
    prediction_type: str | None = None
    weights: tuple[WeightsOption, ...] = ()
    tuning_family: str | None = None
    budget: Budget | None = None
    calibration: CalibrationOption | None = None

    def __post_init__(self) -> None:
        check_one_of("--target", self.target, TARGETS)
        for dtype in self.dtypes:
            check_one_of("--dtype", dtype, DTYPES)
        for name in self.instruction_sets:
            check_one_of("--cpu", name, ALL_INSTRUCTION_SETS)
        for name in self.components:
            check_one_of("--component", name, COMPONENTS)
        if self.prompt_chunks < 1:
            raise UserError("--prompt-chunks", str(self.prompt_chunks), "1 or more", "leave it out for one")
        if self.prediction_type is not None:
            check_one_of("--prediction-type", self.prediction_type, PREDICTION_TYPES)
        if self.budget is not None and not any(self.weights_of(name) == "mixed" for name in self.components):
            given = ", ".join(map(str, self.weights)) or "float16"
            raise UserError(f"--budget {self.budget}", f"--weights {given}", "--weights mixed", "pass it, or no budget")
        if self.calibration is not None:
            self._check_calibration()

    def _check_calibration(self) -> None:
        given = ", ".join(map(str, self.weights)) or "no --weights"
        if all(self.weights_of(name) == WEIGHTS[0] for name in self.components):
            raise UserError("--calibrate", given, "weights of few bits", "add for example --weights int4")
        if missing := [name for name in DRAWING if name not in self.components]:
            wanted = "all components that draw"
            raise UserError("--calibrate", f"a build without {', '.join(missing)}", wanted, "leave --component out")

    def weights_of(self, component: str) -> str:
        """Return what a component's weights are stored in, one of WEIGHTS."""
        kind = kind_of(component)
        named = [option for option in self.weights if option.component == kind]
        general = [option for option in self.weights if option.component is None]
        return (named or general)[-1].format if named or general else WEIGHTS[0]

    def for_target(self, target: str) -> "BuildConfig":
        """Return the same build for another target. Only the original target's IR is written to `dump_ir`."""
        return dataclasses.replace(self, target=target, dump_ir=self.dump_ir if target == self.target else None)

    @property
    def captured_dtypes(self) -> tuple[str, ...]:
        """The dtypes to capture the model in: those of the libraries, also of those for a browser's processor."""
        on_processor = BROWSER_PROCESSOR.dtypes if self.target == "webgpu" and self.instruction_sets else ()
        return tuple(dict.fromkeys((*self.dtypes, *on_processor)))

    @property
    def preset(self) -> TargetPreset:
        """The options of this target."""
        return TARGETS[self.target]


def parse_size(text: str, option: str = "--size") -> tuple[int, int]:
    """Return height and width of `WIDTHxHEIGHT`, in pixels. option: that is named in errors.

    Raises:
        UserError: the text is not of this form.
    """
    size = re.fullmatch(r"([0-9]{1,5})[xX×]([0-9]{1,5})", text.strip())
    if size is None:
        raise UserError(option, repr(text), "WIDTHxHEIGHT in pixels", f"write for example {option} 512x768")
    return int(size[2]), int(size[1])
