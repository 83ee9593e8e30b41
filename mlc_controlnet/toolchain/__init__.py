"""WebAssembly without a C++ toolchain to install: TVM's runtime, compiled and linked by the ziglang wheel.

    executable.export_library("circles.wasm", fcompile=link_wasm)

`link_wasm.py` links; `wasm_runtime.py` builds what it links against, once per user; `recipe.py` says out of what;
`overlay/` holds the few files that TVM's wheel lacks or that a browser needs otherwise.
"""

from mlc_controlnet.toolchain.link_wasm import link_wasm
from mlc_controlnet.toolchain.wasm_runtime import build_runtime

__all__ = ["build_runtime", "link_wasm"]
