"""Runs as a user starts them: processes that are killed, told to end, and several at once."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mlc_controlnet.train.config_file import from_tree
from mlc_controlnet.train.data.fill50k_to_shards import fill50k_to_shards
from mlc_controlnet.train.trainer import train
from tests.train.conftest import same_weights, tiny_tree, write_config, write_set

pytestmark = pytest.mark.integration

WEIGHTS = "diffusion_pytorch_model.safetensors"
STEPS = 30
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # as in this process: bit for bit


# A process that exits while it is connected is aborted now and then, and the launcher reports that the run failed.
# Python calls first what was registered last. One write a line: the processes share a pipe.
BOTH_RUNS = """\
import atexit, sys
from torch.distributed import is_initialized
from mlc_controlnet.train.config_file import load_config
from mlc_controlnet.train.trainer import train

atexit.register(lambda: sys.stdout.write(f"connected at the exit: {is_initialized()}\\n"))
for config in sys.argv[1:]:
    assert train(load_config(config)) is not None
"""


def start(config: Path, *launcher: str) -> subprocess.Popen[str]:
    return start_python(*launcher, "-m", "mlc_controlnet", "train", "--config", str(config))


def start_python(*arguments: str) -> subprocess.Popen[str]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "process_group": 0}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
    try:
        return subprocess.Popen([sys.executable, *arguments], **options, text=True, env=ENVIRONMENT)
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for_step(process: subprocess.Popen[str], step: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            return
    raise AssertionError(f"the run ended before step {step}")


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def whole_run(tiny_base: Path, tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The ControlNet of all steps without a stop."""
    out = tmp_path_factory.mktemp("whole")
    return train(from_tree(tiny_tree(tiny_base, tiny_set, out=str(out), trainer__max_steps=STEPS)), quiet)


def test_a_run_killed_again_and_again_ends_with_the_weights_of_one_that_was_not(
    tiny_base: Path, tiny_set: Path, tmp_path: Path, whole_run: Path
) -> None:
    out = tmp_path / "killed"
    tree = tiny_tree(
        tiny_base, tiny_set, out=str(out), trainer__max_steps=STEPS, trainer__checkpoint_every=1, log__every=1
    )
    config = write_config(tmp_path / "killed.yaml", tree)
    for step, delay in ((7, 0.0), (19, 0.006)):  # checkpoints are written at every step
        process = start(config)
        wait_for_step(process, step)
        time.sleep(delay)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    finish(start(config))
    assert same_weights(out / "controlnet", whole_run)


def test_sigterm_saves_exits_with_zero_and_the_run_goes_on_from_there(
    tiny_base: Path, tiny_set: Path, tmp_path: Path, whole_run: Path
) -> None:
    out = tmp_path / "asked"
    tree = tiny_tree(tiny_base, tiny_set, out=str(out), trainer__max_steps=STEPS, log__every=1)
    config = write_config(tmp_path / "asked.yaml", tree)
    process = start(config)
    wait_for_step(process, 5)
    process.terminate()
    output = finish(process)
    assert "stopped by SIGTERM after step" in output
    saved = json.loads((next((out / "checkpoints").glob("step-*")) / "state.json").read_text())["step"]
    assert 5 <= saved < STEPS and not (out / "controlnet").exists()
    finish(start(config))
    assert same_weights(out / "controlnet", whole_run)


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_loses_no_step_and_the_run_goes_on_from_there(
    workers: int, tiny_base: Path, tiny_set: Path, tmp_path: Path, whole_run: Path
) -> None:
    """It reaches every process of the terminal's foreground, also those that read data."""
    out = tmp_path / "interrupted"
    options = {"trainer__max_steps": STEPS, "log__every": 1, "data__workers": workers}
    config = write_config(tmp_path / "interrupted.yaml", tiny_tree(tiny_base, tiny_set, out=str(out), **options))
    process = start(config)
    wait_for_step(process, 5)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "stopped by Ctrl-C after step" in output
    assert output.endswith("interrupted\n") and "Traceback" not in output
    saved = json.loads((next((out / "checkpoints").glob("step-*")) / "state.json").read_text())["step"]
    assert 5 <= saved < STEPS and not (out / "controlnet").exists()
    finish(start(config))
    assert same_weights(out / "controlnet", whole_run)


def largest_difference(first: Path, second: Path) -> float:
    ours, theirs = load_file(first), load_file(second)
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


def test_two_processes_with_half_the_batch_give_the_gradients_of_one(
    tiny_base: Path, tiny_set: Path, tmp_path: Path
) -> None:
    """Ten samples in batches of four: an epoch ends inside a batch, on one of the two. The optimizer's first moment is
    linear in the gradients, so a wrong scale would show there, though Adam's steps do not see it.
    """
    options = {"trainer__max_steps": 8, "optim__max_grad_norm": 0.0, "data__proportion_empty_prompts": 0.3}
    one = tiny_tree(tiny_base, tiny_set, out=str(tmp_path / "one"), trainer__batch_size=4, **options)
    two = tiny_tree(tiny_base, tiny_set, out=str(tmp_path / "two"), trainer__batch_size=2, **options)
    train(from_tree(one), quiet)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    output = finish(start(write_config(tmp_path / "two.yaml", two), *launcher))
    assert output.count("step 8/8, loss") == 1  # the second process says nothing
    for name in ("weights.safetensors", "optimizer.safetensors"):
        two_file, one_file = (tmp_path / run / "checkpoints" / "step-00000008" / name for run in ("two", "one"))
        assert largest_difference(two_file, one_file) < 1e-5
    moments = load_file(tmp_path / "one" / "checkpoints" / "step-00000008" / "optimizer.safetensors")
    assert max(moment.abs().max().item() for key, moment in moments.items() if key.endswith("exp_avg")) > 1e-3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("flag", "processes"), [("--cpu", 1), ("--multi_gpu", 2)])
def test_accelerate_launch_starts_a_run_too(
    tiny_base: Path, tiny_set: Path, tmp_path: Path, flag: str, processes: int
) -> None:
    """Without a GPU it starts more than one process only where it is told that there are several."""
    tree = tiny_tree(tiny_base, tiny_set, out=str(tmp_path / "own"))
    own = train(from_tree(tree), quiet)
    tree["trainer"]["batch_size"] = 2 // processes
    config = write_config(tmp_path / "launched.yaml", {**tree, "out": str(tmp_path / "launched")})
    launcher = ["-m", "accelerate.commands.launch", flag, "--num_processes", str(processes), "--num_machines", "1"]
    flags = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(free_port())]
    output = finish(start(config, *launcher, *flags))
    assert output.count("step 4/4, loss") == 1  # a second process says nothing
    assert own is not None and largest_difference(tmp_path / "launched" / "controlnet" / WEIGHTS, own / WEIGHTS) < 1e-5


def test_two_processes_on_uneven_shards_end_and_go_on(tiny_base: Path, tmp_path: Path) -> None:
    """One process has a shard of one sample, the other eight: whoever is through begins anew, nobody waits."""
    for number, count in enumerate((1, 5, 3)):
        folder = write_set(tmp_path / f"set{number}", count)
        fill50k_to_shards(folder, tmp_path / "one", image_extension="image.png", log=quiet)
        (tmp_path / "one" / "00000.tar").rename(tmp_path / f"{number}.tar")
    options = {
        "data__format": "webdataset",
        "data__image_key": "image.png",
        "data__shuffle_buffer": 2,
        "trainer__checkpoint_every": 4,
    }
    path = f"{tmp_path}/{{0..2}}.tar"
    runs = []
    for steps in (4, 8):
        tree = tiny_tree(tiny_base, Path(path), out=str(tmp_path / "out"), trainer__max_steps=steps, **options)
        runs.append(write_config(tmp_path / f"{steps}.yaml", tree))
    (tmp_path / "both.py").write_text(BOTH_RUNS)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    output = finish(start_python(*launcher, str(tmp_path / "both.py"), *map(str, runs)))
    assert all(f"step {steps}/{steps}, loss" in output for steps in (4, 8))
    assert output.count("connected at the exit: False") == 2
    places = json.loads((tmp_path / "out" / "checkpoints" / "step-00000008" / "state.json").read_text())["data"]
    epochs = sorted(place["places"][0][0] for place in places)
    assert [place["taken"] for place in places] == [8, 8] and epochs[1] > epochs[0]
