"""Correct TVM's OpenCL C: a vector of numbers is `(half4)(a, b, c, d)`, where TVM writes C++'s `half4(a, b, c, d)`.

Compilers that are strict, such as Intel's, reject the latter.
"""

import re

import tvm_ffi

CONSTRUCTOR = re.compile(r"\b((?:half|float|u?int|u?short|u?char)(?:2|3|4|8|16))\(")


@tvm_ffi.register_global_func("tvm_callback_opencl_postproc", override=True)
def correct_vectors(code: str, *_target: object) -> str:
    """Rewrite every vector constructor. TVM calls it with the source of all kernels."""
    return CONSTRUCTOR.sub(r"(\1)(", code)
