import pytest
import tvm
from tvm import relax

from mlc_controlnet.tuning.tasks import count_calls, find_tasks
from tests.tuning.operations import LLVM, lower


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
    return lower(builder)


def test_calls_are_counted_for_a_picture_of_twenty_guided_steps(lowered: tvm.IRModule) -> None:
    calls = count_calls(lowered)
    assert calls["NT_matmul"] == 2 * 40 + 2 * 2
    assert calls["conv2d"] == 40
    assert calls["conv2d1"] == 0, "a picture does not need the VAE encoder"


def test_tasks_are_the_convolutions_and_products_that_a_picture_needs(lowered: tvm.IRModule) -> None:
    calls = {task.tunable.operation.kernel: task.calls for task in find_tasks(lowered, LLVM)}
    assert calls == {"matmul_cpu": 84, "convolution_cpu": 40}


def test_an_operation_that_two_functions_compute_is_one_task(lowered: tvm.IRModule) -> None:
    mod = lowered.clone()
    mod["conv2d1"] = mod["conv2d"].with_attr("global_symbol", "conv2d1")
    calls = {task.tunable.operation.kernel: task.calls for task in find_tasks(mod, LLVM, {"vae_encoder": 1, "unet": 1})}
    assert calls == {"matmul_cpu": 4, "convolution_cpu": 2}


def test_scheduled_functions_are_no_tasks(lowered: tvm.IRModule) -> None:
    mod = lowered.clone()
    mod["conv2d"] = mod["conv2d"].with_attr("tirx.is_scheduled", True)
    assert [task.tunable.operation.kernel for task in find_tasks(mod, LLVM)] == ["matmul_cpu"]
