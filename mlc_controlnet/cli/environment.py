"""Checks that the packages a command needs are installed, before it imports them."""

import importlib.util
from collections.abc import Sequence

from mlc_controlnet.errors import missing_package

BUILD_PACKAGES = ("numpy", "torch", "tvm", "diffusers", "transformers", "safetensors", "ziglang")


def check_packages(names: Sequence[str]) -> None:
    """Raise UserError for the first package that is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise missing_package(name)
