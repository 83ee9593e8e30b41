"""Compile and link TVM's runtime for WebAssembly with the ziglang wheel, without an installed C++ toolchain.

    executable.export_library("circles.wasm", fcompile=link_wasm)

`link_wasm.py` links a library. `wasm_runtime.py` builds the runtime that it links against, once per user. `recipe.py`
lists the sources of that runtime. `overlay/` holds the few files that TVM's wheel lacks or that a browser needs in
another form.
"""

from mlc_controlnet.toolchain.link_wasm import link_wasm
from mlc_controlnet.toolchain.wasm_runtime import build_runtime

__all__ = ["build_runtime", "link_wasm"]
