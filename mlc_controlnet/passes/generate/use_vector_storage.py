"""Declare tensors as arrays of vec4 if a kernel reads and writes them only in vectors of four.

Before: x = decl_buffer((n,), "float16", data=x_ptr); y = x[ramp(4 * i, 1, 4)]
After:  x = decl_buffer((n / 4,), "float16x4", data=x_ptr); y = x[i]

WGSL cannot cast arrays: a vector of `array<f16>` is read as four numbers of two bytes, each with a check of its index,
and a vector of `array<vec4<f16>>` as one value of eight bytes. TVM's PointerValueTypeRewrite should do this, but in
0.27 it looks at a kernel's pointers, while accesses name the buffers that are declared on them, so it never fires. The
pass changes tensors in workgroup memory as well.

Runs on device functions: their callers pass pointers, which do not change.
"""

import logging
from collections.abc import Callable
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.sym import Analyzer

from mlc_controlnet.kernels.vectors import LANES

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="UseVectorStorage")
class UseVectorStorage:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        mod = mod.clone()
        fired = 0
        for global_var, function in mod.functions_items():
            if isinstance(function, tirx.PrimFunc):
                tensors = _Tensors(function)
                mod[global_var] = tensors.rewritten()
                fired += len(tensors.vectors)
        log.info("%d tensors are of vectors", fired)
        return mod


class _Tensors:
    """The tensors of one device function: flat buffers, declared on its pointers or allocated.

    Attributes:
        vectors: those of which every access is an aligned vector -> the buffers of vectors that take their places.
    """

    def __init__(self, function: tirx.PrimFunc) -> None:
        self.function = function
        self.analyzer = Analyzer()
        self.pointers: dict[tirx.Buffer, tirx.Var] = {}
        self.flat: set[tirx.Buffer] = set()
        self.accessed: set[tirx.Buffer] = set()
        self.otherwise: set[tirx.Buffer] = set()  # accessed by anything but an aligned vector
        self._walk(tirx.DeclBuffer, self._declaration)
        self._walk(tirx.AllocBuffer, lambda statement: self._found(statement.buffer))
        self._walk(tirx.Bind, self._binding)
        self._walk(TensorLoad, lambda load: self._access(load.source, load.indices))
        self._walk(tirx.BufferStore, lambda store: self._access(store.buffer, store.indices))
        self.vectors = {buffer: _of_vectors(buffer) for buffer in self.accessed - self.otherwise}

    def _walk(self, kind: type, visit: Callable[[Any], None]) -> None:
        tvm_ffi.structural_walk(self.function.body, (kind, visit), order="pre")

    def _declaration(self, statement: tirx.DeclBuffer) -> None:
        if statement.data in set(self.function.params):
            self.pointers[statement.buffer] = statement.data
            self._found(statement.buffer)

    def _found(self, buffer: tirx.Buffer) -> None:
        scalars = tvm.runtime.DataType(str(buffer.dtype)).lanes == 1
        if not scalars or len(buffer.shape) != 1 or not isinstance(buffer.shape[0], tirx.IntImm):
            return
        if int(buffer.shape[0]) % LANES == 0:
            self.flat.add(buffer)

    def _binding(self, statement: tirx.Bind) -> None:
        if str(statement.var.ty) == "int32":
            self.analyzer.bind(statement.var, statement.value)

    def _access(self, buffer: tirx.Buffer, indices: list[tirx.Expr]) -> None:
        if buffer in self.flat:
            self.accessed.add(buffer)
            if not self._is_aligned_vector(indices[0]):
                self.otherwise.add(buffer)

    def _is_aligned_vector(self, index: tirx.Expr) -> bool:
        if not isinstance(index, tirx.Ramp) or int(index.lanes) != LANES or int(index.stride) != 1:
            return False
        multiple = self.analyzer.modular_set(index.base)
        return multiple.coeff % LANES == 0 and multiple.base % LANES == 0

    def rewritten(self) -> tirx.PrimFunc:
        vectors = self.vectors
        pointers = {
            pointer: tirx.Var(pointer.name, tvm.ir.PointerType(tvm.ir.PrimType(vectors[buffer].dtype), "global"))
            for buffer, pointer in self.pointers.items()
            if buffer in vectors
        }

        def at(indices: list[tirx.Expr]) -> list[tirx.Expr]:
            return [self.analyzer.simplify(indices[0].base // LANES)]

        def load(node: TensorLoad) -> TensorLoad:
            return tirx.BufferLoad(vectors[node.source], at(node.indices)) if node.source in vectors else node

        def store(node: tirx.BufferStore) -> tirx.BufferStore:
            buffer = vectors.get(node.buffer)
            return node if buffer is None else tirx.BufferStore(buffer, node.value, at(node.indices))

        def declare(node: tirx.DeclBuffer) -> tirx.DeclBuffer:
            buffer = vectors.get(node.buffer)
            return node if buffer is None else tirx.DeclBuffer(buffer, data=pointers[node.data])

        def allocate(node: tirx.AllocBuffer) -> tirx.AllocBuffer:
            buffer = vectors.get(node.buffer)
            return node if buffer is None else tirx.AllocBuffer(buffer)

        body = self.function.body
        for kind, replace in (
            (TensorLoad, load),
            (tirx.BufferStore, store),
            (tirx.DeclBuffer, declare),
            (tirx.AllocBuffer, allocate),
        ):
            body = tvm_ffi.structural_map(body, (kind, replace))
        params = [pointers.get(param, param) for param in self.function.params]
        return tirx.PrimFunc(params, body, self.function.ret_type, self.function.attrs)


def _of_vectors(buffer: tirx.Buffer) -> tirx.Buffer:
    shape, dtype = (int(buffer.shape[0]) // LANES,), f"{buffer.dtype}x{LANES}"
    return tirx.decl_buffer(shape, dtype, buffer.name, scope=buffer.scope())
