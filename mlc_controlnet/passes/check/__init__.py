"""Phase check: no kernel exceeds what a WebGPU device grants."""
