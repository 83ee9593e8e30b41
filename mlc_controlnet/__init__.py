"""Train a ControlNet, compile it with Apache TVM Relax, run it in a browser tab over WebGPU or natively."""

__version__ = "0.1.0"
