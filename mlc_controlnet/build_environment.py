"""Imported first by build.py, whose other imports would end in a traceback where a package is not installed."""

from mlc_controlnet.environment import check_packages

check_packages(("numpy", "torch", "tvm", "diffusers", "transformers", "safetensors", "ziglang"))
