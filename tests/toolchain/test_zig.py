"""Running zig."""

import pytest

from mlc_controlnet.toolchain.zig import find_zig


def test_a_failing_command_is_reported_with_its_output() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)zig exited with 1:\n.*no-such-input\.o.*command: .*wasm-ld"):
        find_zig().run(["wasm-ld", "no-such-input.o"])
