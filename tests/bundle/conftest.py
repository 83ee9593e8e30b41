import pytest

from mlc_controlnet.bundle.manifest import (
    FORMAT_VERSION,
    ComponentEntry,
    LatentPreview,
    Library,
    Manifest,
    MemoryMode,
    MemoryPlan,
    ModelSummary,
    SamplersSpec,
    TokenizerSpec,
)
from mlc_controlnet.bundle.params import ParamRecord, ParamsSpec
from mlc_controlnet.bundle.writer import BundleWriter
from mlc_controlnet.components import COMPUTE, TensorSpec
from mlc_controlnet.config import Defaults

FILES = {
    "tiny-float32.so": b"library" * 1000,
    "params/00.bin": bytes(range(12)),
    "tokenizer/tokenizer.json": b"{}",
    "samplers.json": b"{}",
}


@pytest.fixture
def manifest() -> Manifest:
    """Describes FILES, before its files are known."""
    return Manifest(
        format_version=FORMAT_VERSION,
        model=ModelSummary("tiny", 16, 24, 4, 8, "v_prediction", 0.18215),
        target="llvm",
        libraries=(Library("tiny-float32.so", "llvm", "float32", (), {}, {"unet": 640}, {"unet": 3}, 128),),
        components={
            "unet": ComponentEntry(
                function="unet",
                inputs=(TensorSpec("sample", (1, 4, 2, 3), "float32"), TensorSpec("context", (1, 77, 8), COMPUTE)),
                outputs=(TensorSpec("output", (1, 4, 2, 3), "float32"),),
                params=("unet.weight", "unet.bias"),
            )
        },
        controlnets=(),
        params=ParamsSpec(
            dtype="float16",
            bytes=10,
            shards=("params/00.bin",),
            records=(
                ParamRecord("unet.weight", (1, 3), "float16", 0, 0, 6),
                ParamRecord("unet.bias", (2,), "float16", 0, 8, 4),
            ),
        ),
        tokenizer=TokenizerSpec("tokenizer/tokenizer.json", 77, 512, 513, 513),
        samplers=SamplersSpec("samplers.json", "ddim"),
        defaults=Defaults(20, 2.0, 1.0),
        latent_preview=LatentPreview(((0.1, 0.0, 0.0, 0.0),) * 3, (0.5, 0.5, 0.5)),
        memory={"tiny-float32.so": MemoryPlan(MemoryMode(1000, 0, {"unet": 2}), MemoryMode(990, 10, {"unet": 0}))},
        parity_db={"unet": {"float32": 85.5}},
        versions={"mlc_controlnet": "0.1.0"},
    )


@pytest.fixture
def bundle_path(tmp_path, manifest):
    """A complete bundle of a few kilobytes."""
    target = tmp_path / "tiny-llvm"
    write_bundle(target, manifest)
    return target


def write_bundle(target, manifest):
    with BundleWriter(target) as writer:
        for path, data in FILES.items():
            writer.add_bytes(path, data)
        return writer.finish(manifest)
