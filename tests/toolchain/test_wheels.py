"""Finding the sources inside installed wheels."""

import pytest

from mlc_controlnet.errors import UserError
from mlc_controlnet.toolchain.wheels import wheel_folder


def test_an_installed_wheel_is_found_with_what_it_has_to_carry() -> None:
    folder = wheel_folder("apache-tvm", module="tvm", needs=("web/emcc/wasm_runtime.cc",))
    assert (folder / "web/emcc/wasm_runtime.cc").is_file()


def test_a_wheel_that_is_not_installed_is_named_with_the_remedy() -> None:
    with pytest.raises(UserError, match=r"no-such-wheel: got no installed package, .*; pip install the no-such-wheel"):
        wheel_folder("no-such-wheel", module="no_such_module", needs=())


def test_a_wheel_without_the_sources_is_named_with_the_missing_file() -> None:
    with pytest.raises(UserError, match=r"got apache-tvm 0\.\S+ without web/emcc/no_such\.cc"):
        wheel_folder("apache-tvm", module="tvm", needs=("web/emcc/no_such.cc",))
