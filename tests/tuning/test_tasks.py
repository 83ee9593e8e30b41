import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.target import Target

from mlc_controlnet.tuning.tasks import count_calls, find_tasks, list_candidates, schedule_by_rules

LLVM = Target({"kind": "llvm", "num-cores": 2})


@pytest.fixture(scope="module")
def lowered() -> tvm.IRModule:
    """Two components that share a linear layer; the unet has a convolution, the VAE encoder one of its own."""
    builder = relax.BlockBuilder()
    for component in ("unet", "text_encoder", "vae_encoder"):
        x = relax.Var("x", relax.TensorType((12, 24), "float32"))
        weight = relax.Var("weight", relax.TensorType((24, 24), "float32"))
        picture = relax.Var("picture", relax.TensorType((1, 4, 6, 8), "float32"))
        kernel_rows = 3 if component == "unet" else 1
        kernel = relax.Var("kernel", relax.TensorType((4, 4, kernel_rows, 3), "float32"))
        with builder.function(component, [x, weight, picture, kernel]):
            with builder.dataflow():
                y = x
                for _ in range(2):
                    y = builder.emit(relax.op.matmul(y, builder.emit(relax.op.permute_dims(weight))))
                if component == "text_encoder":
                    out = builder.emit_output(y)
                else:
                    z = builder.emit(relax.op.nn.conv2d(picture, kernel, padding=[kernel_rows // 2, 1]))
                    out = builder.emit_output(relax.Tuple([y, z]))
            builder.emit_func_output(out)
    transform = relax.transform
    with LLVM:
        return tvm.transform.Sequential(
            [
                transform.FuseTransposeMatmul(),
                transform.LegalizeOps(),
                transform.AnnotateTIROpPattern(),
                transform.FuseOps(),
                transform.FuseTIR(),
                transform.DeadCodeElimination(),
            ]
        )(builder.get())


def test_calls_are_counted_for_a_picture_of_twenty_guided_steps(lowered: tvm.IRModule) -> None:
    calls = count_calls(lowered)
    assert calls["NT_matmul"] == 2 * 40 + 2 * 2
    assert calls["conv2d"] == 40
    assert calls["conv2d1"] == 0, "a picture does not need the VAE encoder"


def test_tasks_are_the_convolutions_and_products_that_a_picture_needs(lowered: tvm.IRModule) -> None:
    assert {task.name: task.calls for task in find_tasks(lowered)} == {"NT_matmul": 84, "conv2d": 40}


def test_scheduled_functions_are_no_tasks(lowered: tvm.IRModule) -> None:
    mod = lowered.clone()
    mod["conv2d"] = mod["conv2d"].with_attr("tirx.is_scheduled", True)
    assert [task.name for task in find_tasks(mod)] == ["NT_matmul"]


@pytest.mark.parametrize("name", ["conv2d", "NT_matmul"])
def test_every_candidate_computes_what_the_function_says(lowered: tvm.IRModule, name: str) -> None:
    function = lowered[name]
    random = np.random.default_rng(0)
    inputs = [random.standard_normal([int(n) for n in p.ty.shape]).astype("float32") for p in function.params]

    def compute(mod: tvm.IRModule) -> np.ndarray:
        arguments = [tvm.runtime.tensor(value) for value in inputs]
        tvm.compile(mod, target=LLVM)["main"](*arguments)
        return arguments[-1].numpy()

    want = compute(tvm.IRModule({"main": function.with_attr("global_symbol", "main")}))
    candidates = list(list_candidates(function, LLVM))
    assert len(candidates) > 5
    for schedule in (schedule_by_rules(function, LLVM), *candidates[:: max(1, len(candidates) // 8)]):
        np.testing.assert_allclose(compute(schedule.mod), want, rtol=1e-4, atol=1e-5)
