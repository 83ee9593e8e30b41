"""Make a very large plane a few channels at a time, and let its readers read them before the next few are made.

Before: x = conv2d(y, weight) + bias
        a = conv2d(silu(group_norm(x, gamma, beta)), weight_a)
        b = conv2d(x, weight_b)
After:  x_0 = conv2d(y, weight[:n]) + bias[:n]
        a_0 = conv2d(silu(group_norm(x_0, gamma[:n], beta[:n])), weight_a[:, :n])
        b_0 = conv2d(x_0, weight_b[:, :n])
        x_1 = conv2d(y, weight[n : 2 n]) + bias[n : 2 n]
        a_1 = conv2d(silu(group_norm(x_1, ...)), weight_a[:, n : 2 n]) + a_0
        ...

The result is the same up to rounding, because a group norm's groups and a convolution's sums over input channels fall
into pieces. Fires on the 256 channels at full size near the end of Stable Diffusion's decoder, whose two readers have
128 each. At 512x512 that plane is 128 MiB in float16, and in float32 twice as much as WebGPU binds by default. Without
this pass the decoder's plan is almost half as large again. The sums are read and written once per piece, which costs
little traffic in comparison with the arithmetic.
"""

import logging
import math
from dataclasses import dataclass

import tvm
from tvm import relax, te
from tvm.relax.expr_functor import PyExprMutator, mutator

from mlc_controlnet.passes.clean.lay_out_weights import AS_TORCH, LAID_OUT, is_direct, laid_out
from mlc_controlnet.passes.matching import is_call, readers, shape_of
from mlc_controlnet.passes.quantize.decoding_calls import decoding

log = logging.getLogger(__name__)

LARGE_PLANE = 32 * 2**20  # numbers; a larger one is split: in float32 it would be over WebGPU's default binding
PIECES = 8


@dataclass(frozen=True)
class Reader:
    """conv2d(x), or conv2d(silu(group_norm(x))), rounded to `total`'s dtype.

    Attributes:
        total: the sum of the pieces' sums.
    """

    total: relax.Var
    conv: relax.Call
    norm: relax.Call | None = None
    silu: bool = False


@dataclass(frozen=True)
class Plane:
    """x, made by a convolution whose bias is added."""

    conv: relax.Call
    bias: relax.Expr  # [C]
    readers: tuple[Reader, ...]


@tvm.transform.module_pass(opt_level=0, name="SplitLargePlanes")
class SplitLargePlanes:
    def __init__(self, large_plane: int = LARGE_PLANE) -> None:
        self.large_plane = large_plane

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        splitter = _Splitter(mod)
        for global_var, function in mod.functions_items():
            if isinstance(function, relax.Function):
                finder = _Finder(function, self.large_plane)
                splitter.planes, splitter.value_of, splitter.decoded = finder.planes(), finder.value_of, {}
                rewritten = relax.analysis.remove_all_unused(splitter.visit_expr(function))
                splitter.builder_.update_func(global_var, rewritten)
        log.info("split %d large planes", splitter.fired)
        return splitter.builder_.get()


class _Finder:
    """The planes of a function that can be made in pieces."""

    def __init__(self, function: relax.Function, large_plane: int) -> None:
        self.readers_of = readers(function)
        self.large_plane = large_plane
        self.bindings = [binding for block in function.body.blocks for binding in block.bindings]
        self.value_of = {binding.var: binding.value for binding in self.bindings}
        self.var_of = {binding.value: binding.var for binding in self.bindings}

    def planes(self) -> dict[relax.Var, Plane]:
        """List the planes in the order of execution. A call that reads a plane in pieces is not split itself."""
        found: dict[relax.Var, Plane] = {}
        reading: list[relax.Call] = []
        for binding in self.bindings:
            plane = self._plane(binding.var) if binding.var in self.readers_of else None
            if plane is not None and not any(plane.conv.same_as(conv) for conv in reading):
                found[binding.var] = plane
                reading += [reader.conv for reader in plane.readers]
        return found

    def _plane(self, var: relax.Var) -> Plane | None:
        add = self.value_of[var]
        if not is_call(add, "relax.add") or math.prod(shape_of(var)) <= self.large_plane:
            return None
        conv, bias = (self.value_of.get(argument) for argument in add.args)
        if is_call(conv, "relax.astype"):
            conv = self.value_of.get(conv.args[0])
        channels = shape_of(var)[1]
        if not _is_whole_conv2d(conv) or not is_call(bias, "relax.reshape") or channels % PIECES:
            return None
        if shape_of(bias) != (1, channels, 1, 1) or shape_of(bias.args[0]) != (channels,):
            return None
        found = [self._reader(read) for read in self.readers_of[var]]
        known = tuple(reader for reader in found if reader is not None)
        return Plane(conv, bias.args[0], known) if known and len(known) == len(found) else None

    def _reader(self, read: relax.Expr) -> Reader | None:
        norm, silu, conv = None, False, read
        if is_call(read, "relax.nn.group_norm"):
            norm = read
            if norm.attrs.num_groups % PIECES:
                return None
            conv = self._only_reader(norm)
            if is_call(conv, "relax.nn.silu"):
                silu, conv = True, self._only_reader(conv)
        if not _is_whole_conv2d(conv):
            return None
        cast = self._only_reader(conv)
        total = cast if is_call(cast, "relax.astype") else conv
        return Reader(self.var_of[total], conv, norm, silu)

    def _only_reader(self, value: relax.Expr) -> relax.Expr | None:
        reading = self.readers_of.get(self.var_of[value], [])
        return reading[0] if len(reading) == 1 else None


@mutator
class _Splitter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.mod = mod
        self.planes: dict[relax.Var, Plane] = {}
        self.value_of: dict[relax.Var, relax.Expr] = {}
        self.decoded: dict[relax.Var, relax.Var] = {}  # a packed weight -> its numbers, before the plane
        self.totals: dict[relax.Var, relax.Var] = {}
        self.fired = 0

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        if binding.var in self.totals:
            self.set_var_remap(binding.var, self.totals[binding.var])
            return
        if binding.var in self.planes:
            self.fired += 1
            self._split(self.planes[binding.var], shape_of(binding.var)[1] // PIECES)
        super().visit_var_binding_(binding)  # nothing reads a split plane, nor what its readers were

    def _split(self, plane: Plane, channels: int) -> None:
        """Emit every piece, of so many channels, and what the readers make of it."""
        y, bias = self._at_hand(plane.conv.args[0]), self._at_hand(plane.bias)
        for start in range(0, PIECES * channels, channels):
            rows = start, start + channels
            conv = self._convolve(plane.conv, y, 0, rows)
            added = self._emit(relax.op.reshape(self._slice(bias, 0, rows), (1, channels, 1, 1)))
            piece = self._emit(relax.op.add(self._round(conv, added), added))
            for reader in plane.readers:
                read = piece if reader.norm is None else self._normalize(reader.norm, reader.silu, piece, rows)
                total = self._round(self._convolve(reader.conv, read, 1, rows), reader.total)
                if start:
                    total = self._emit(relax.op.add(total, self.totals[reader.total]))
                # An output of the block, so that FuseOps adds at once and does not keep the pieces' sums for later.
                self.totals[reader.total] = self.builder_.emit_output(total)

    def _normalize(self, norm: relax.Call, silu: bool, piece: relax.Var, rows: tuple[int, int]) -> relax.Var:
        attrs = norm.attrs
        gamma, beta = (self._slice(self._at_hand(weight), 0, rows) for weight in norm.args[1:])
        groups = int(attrs.num_groups) // PIECES
        y = self._emit(
            relax.op.nn.group_norm(piece, gamma, beta, groups, attrs.channel_axis, attrs.axes, attrs.epsilon)
        )
        return self._emit(relax.op.nn.silu(y)) if silu else y

    def _convolve(self, like: relax.Call, x: relax.Var, axis: int, rows: tuple[int, int]) -> relax.Var:
        """Emit the convolution with some rows of the weight [N, C, kh, kw] along `axis`, cut out of the param."""
        weight = self._at_hand(laid_out(like.args[1], self.value_of.get))
        piece = self._slice(weight, LAID_OUT.index(axis), rows)
        return self._emit(relax.Call(like.op, [x, self._emit(relax.op.permute_dims(piece, AS_TORCH))], like.attrs))

    def _round(self, x: relax.Var, like: relax.Expr) -> relax.Var:
        dtype = str(like.ty.dtype)
        return x if str(x.ty.dtype) == dtype else self._emit(relax.op.astype(x, dtype))

    def _slice(self, x: relax.Expr, axis: int, rows: tuple[int, int]) -> relax.Var:
        """Emit a slice whose kernel reads its begin from memory, so that all slices of a weight share a kernel."""
        start, stop = rows
        begin = relax.const([start], "int32")
        return self.builder_.emit_te(_channels_of, x, begin, axis, stop - start, primfunc_name_hint="slice")

    def _at_hand(self, x: relax.Expr) -> relax.Expr:
        """Return a value computed before the plane.

        A param is read from the tuple of params, and a packed weight decoded, which may come later.
        """
        value = self.value_of.get(x)
        packed = decoding(value, self.mod)
        if packed is not None:  # from params, into memory, once for all pieces
            if x not in self.decoded:
                operands = [self._at_hand(operand) for operand in packed.operands]
                self.decoded[x] = self._emit(relax.call_tir(packed.call.args[0], operands, packed.call.ty))
            return self.decoded[x]
        if isinstance(x, relax.Var) and not isinstance(value, relax.TupleGetItem):
            return self.visit_expr(x)
        return self._emit(x if value is None else value)

    def _emit(self, value: relax.Expr) -> relax.Var:
        return self.builder_.emit(value)


def _channels_of(x: te.Tensor, begin: te.Tensor, axis: int, size: int) -> te.Tensor:
    """`size` of x along `axis`, from begin[0]."""
    shape = [size if dim == axis else extent for dim, extent in enumerate(x.shape)]
    return te.compute(
        shape, lambda *at: x[tuple(begin[0] + i if dim == axis else i for dim, i in enumerate(at))], "slice"
    )


def _is_whole_conv2d(expr: relax.Expr | None) -> bool:
    """Return whether each result of the call sums over all input channels."""
    return is_call(expr, "relax.nn.conv2d") and is_direct(expr)
