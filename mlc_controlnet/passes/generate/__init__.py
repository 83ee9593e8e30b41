"""Code generation: passes over single kernels that run inside TVM's code generator."""
