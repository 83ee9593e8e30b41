import os
import signal
import threading
from datetime import timedelta

import pytest
import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from mlc_controlnet.train import process
from mlc_controlnet.train.config import RunOptions
from mlc_controlnet.train.process import set_up_process, termination


@pytest.fixture(autouse=True)
def tensor_float_32():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("allowed", [True, False])
def test_tensor_float_32_is_allowed_where_the_run_says_so(allowed: bool) -> None:
    set_up_process(RunOptions(allow_tf32=allowed))
    assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == allowed


def test_the_precision_of_a_run_is_that_of_this_run_and_not_of_one_before() -> None:
    for precision, name in (("bf16", "bf16"), ("32", "no")):
        assert set_up_process(RunOptions(precision=precision)).mixed_precision == name


def test_sigterm_is_noted_inside_and_as_before_outside() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with termination() as asked:
        assert not asked.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.wait(5)
    assert signal.getsignal(signal.SIGTERM) is before


def test_elsewhere_than_in_the_main_thread_nothing_is_changed() -> None:
    seen = []

    def run() -> None:
        with termination() as asked:
            seen.append((signal.getsignal(signal.SIGTERM), asked.is_set()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(signal.getsignal(signal.SIGTERM), False)]


def test_freed_memory_is_kept_where_a_processor_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    monkeypatch.setattr("mlc_controlnet.train.process.keep_freed_memory", lambda: kept.append(1))
    accelerator = set_up_process(RunOptions())
    assert len(kept) == (1 if accelerator.device.type == "cpu" else 0)


def test_processes_wait_long_enough_for_the_one_that_fills_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = []

    def note(**options) -> Accelerator:
        handlers.extend(options["kwargs_handlers"])
        return Accelerator(**options)

    monkeypatch.setattr(process, "Accelerator", note)
    set_up_process(RunOptions())
    (group,) = (handler for handler in handlers if isinstance(handler, InitProcessGroupKwargs))
    assert group.timeout > timedelta(hours=6)
