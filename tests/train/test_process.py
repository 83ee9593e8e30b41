import os
import signal
import threading
from datetime import timedelta

import pytest
import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from mlc_controlnet.train import process
from mlc_controlnet.train.config import RunOptions
from mlc_controlnet.train.process import ctrl_c_asks, set_up_process, termination


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


@pytest.fixture
def in_the_foreground():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores the signal
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_asks_once_and_then_interrupts(in_the_foreground: None) -> None:
    asked = threading.Event()
    with ctrl_c_asks(asked) as pressed:
        press_ctrl_c()
        assert asked.wait(5) and pressed.is_set()
        with pytest.raises(KeyboardInterrupt):
            press_ctrl_c()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_does_not_interrupt_one_of_several_processes(in_the_foreground: None) -> None:
    """Their launcher sends it once more to each."""
    asked = threading.Event()
    with ctrl_c_asks(asked, is_alone=False):
        press_ctrl_c()
        press_ctrl_c()
        assert asked.is_set()


def test_a_process_that_ignores_ctrl_c_goes_on_to_do_so(in_the_foreground: None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with ctrl_c_asks(threading.Event()) as pressed:
        press_ctrl_c()
        assert not pressed.is_set()


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
