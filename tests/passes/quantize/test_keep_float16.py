"""Weights that stay in float16 in the memory of a library that computes in float32."""

import re

import numpy as np
import pytest
import tvm
from tvm import relax

from mlc_controlnet.capture import CapturedModel
from mlc_controlnet.compile.library import count_launches_and_bytes, generate_code, keeps_float16, tvm_target
from mlc_controlnet.config import TARGETS
from mlc_controlnet.instruction_sets import BROWSER_INSTRUCTION_SETS, INSTRUCTION_SETS
from mlc_controlnet.parity.parity import signal_to_noise_db
from mlc_controlnet.passes.pipeline import Pipeline
from mlc_controlnet.passes.quantize.keep_float16 import keep_float16
from tests.passes.quantize.packed_model import captured_layers, inputs, layers, packed_layers, tensors_of


@pytest.fixture(scope="module")
def narrow() -> CapturedModel:
    return keep_float16(captured_layers("float32"))


def lowered(captured: CapturedModel, instruction_set: str | None = None, until: str = "plan") -> tvm.IRModule:
    return Pipeline(tvm_target(TARGETS["llvm"], instruction_set)).run(captured.module, until)


def run(captured: CapturedModel) -> np.ndarray:
    target = tvm_target(TARGETS["llvm"])
    with target:
        library = tvm.compile(lowered(captured), target=target, relax_pipeline=None)
    tensors, params = tensors_of(layers()), []
    for param in captured.params["unet"]:
        value = param.read(tensors).numpy()
        params.append(tvm.runtime.tensor(value.astype(captured.dtype_on_device(param, value.ndim))))
    arguments = [tvm.runtime.tensor(x.numpy()) for x in inputs()]
    return relax.VirtualMachine(library, tvm.cpu())["unet"](*arguments, tuple(params)).numpy()


def reference() -> np.ndarray:
    model = layers().half().float()
    return model(*inputs()).numpy()


def test_matrices_are_read_in_float16_and_vectors_in_float32(narrow: CapturedModel) -> None:
    dtypes = {len(ty.shape): set() for ty in narrow.module["unet"].params[-1].ty.fields}
    for ty in narrow.module["unet"].params[-1].ty.fields:
        dtypes[len(ty.shape)].add(str(ty.dtype))
    assert dtypes == {1: {"float32"}, 2: {"float16"}, 4: {"float16"}}


def test_the_numbers_are_those_of_weights_in_float32_and_of_torch(narrow: CapturedModel) -> None:
    got = run(narrow)
    assert np.array_equal(got, run(captured_layers("float32")))
    assert signal_to_noise_db(reference(), got) > 100


def test_weights_of_few_bits_and_float16_live_in_one_function() -> None:
    packed = packed_layers("palette", 4, "float32")
    both = keep_float16(packed)
    assert {str(ty.dtype) for ty in both.module["unet"].params[-1].ty.fields} == {"uint32", "float16", "float32"}
    assert np.array_equal(run(both), run(packed))


def test_widening_adds_no_launch_and_no_activation(narrow: CapturedModel) -> None:
    assert count_launches_and_bytes(lowered(narrow)) == count_launches_and_bytes(lowered(captured_layers("float32")))


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_processors_widen_whole_vectors(narrow: CapturedModel, instruction_set: str) -> None:
    target = tvm_target(TARGETS["llvm"], instruction_set)
    (code,) = (
        imported.inspect_source("asm")
        for imported in generate_code(lowered(narrow, instruction_set), target).mod.imports
        if imported.kind == "llvm"
    )
    widest = {"x86-64-v4": r"vcvtph2ps\s.*%zmm", "x86-64-v3": r"vcvtph2ps\s.*%ymm", "aarch64": r"fcvtl\s"}
    assert re.search(widest[instruction_set], code)
    assert not re.search(r"\b(callq?|jmp|bl?)\s+\S*(extendhf|h2f)", code)  # a function that widens one number


def test_libraries_for_browsers_and_gpus_read_what_they_compute_in() -> None:
    assert keeps_float16("float32", "llvm", named=True)
    assert not keeps_float16("float16", "llvm", named=True)
    assert not any(keeps_float16("float32", target, named=True) for target in TARGETS if target != "llvm")
    assert not INSTRUCTION_SETS.keys() & BROWSER_INSTRUCTION_SETS.keys()
