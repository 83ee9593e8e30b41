"""Weights in few bits: how they are chosen, packed and read back. numpy and torch only; kernels decode them."""
