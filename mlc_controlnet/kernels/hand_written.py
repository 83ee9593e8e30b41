"""The door for kernels that are written in WGSL: a whole shader, of this project or another, becomes a PrimFunc.

    tensors = {"source": Tensor((64, 32), "float32"), "turned": Tensor((32, 64), "float32")}
    kernel = hand_written(Path("transpose.wgsl").read_text(), tensors, (2, 4), {"rows": 64, "columns": 32})
    builder.emit(relax.call_tir(builder.add_func(kernel, "transpose"), [source], relax.TensorType((32, 64), "float32")))

TVM has no way to put WGSL into a library, but it writes the name of an external function as it is. So the PrimFunc has
the shader's signature and its launch, and calls an external function whose name ends TVM's function, holds the whole
shader, and begins another function, which nobody calls. There the PrimFunc touches each tensor and the workgroup
memory, so that TVM declares them as the shader does, and so that phase check counts them:

    fn transpose_kernel(...) {          // TVM's
      shader_transpose(...);            // from here on it is the external function's name
    }
    ...                                 // the shader
    fn declared() {
      _ = i32
      (0i);                             // the external function's argument
      out_ptr[0i] = ...;                // never executed
    }

The library has the shader as it has every other, so the manifest's hash covers it. Other targets cannot read WGSL: the
pass that uses such a kernel must leave the operation alone there.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.script import tirx as T

from mlc_controlnet.errors import UserError
from mlc_controlnet.kernels.marks import mark_finished, mark_named
from mlc_controlnet.kernels.vectors import LANES

TYPES = {"f32": ("float32", 4), "f16": ("float16", 2), "i32": ("int32", 4), "u32": ("uint32", 4)}
# What WGSL's built-in values are in TVM's function; `grid` and `size` are filled in. TVM spreads x over x and z.
_GROUP = "vec3<u32>(blockIdx.z * gridDim.x + blockIdx.x, blockIdx.y, 0u)"
_BUILTINS = {
    "workgroup_id": _GROUP,
    "local_invocation_id": "threadIdx",
    "num_workgroups": "{grid}",
    "global_invocation_id": f"{_GROUP} * {{size}} + threadIdx",
    "local_invocation_index": "(threadIdx.z * {size}.y + threadIdx.y) * {size}.x + threadIdx.x",
}
_BINDING = re.compile(
    r"(?:@(?:group\(0\)|binding\(\d+\))\s*){2}var<storage(?:,\s*(read|read_write))?>\s*(\w+)\s*:"
    r"\s*array<(vec4<)?(\w+)>{1,2}\s*;"
)
_ENTRY = re.compile(r"(?:@compute\s*|@workgroup_size\(([^)]*)\)\s*){2}fn\s+(\w+)\s*\((.*?)\)\s*\{", re.DOTALL)
_MEMORY = re.compile(r"var<workgroup>\s*\w+\s*:\s*array<(?:vec([234])<)?(\w+)>?\s*,\s*([^>]+)>")
_WGSL_OF = {"float32": "f32", "float16": "f16", "int32": "i32", "uint32": "u32"}


@dataclass(frozen=True)
class Tensor:
    """What a kernel reads or writes."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class _Binding:
    name: str
    is_written: bool
    lanes: int
    dtype: str


def hand_written(
    wgsl: str, tensors: Mapping[str, Tensor], workgroups: tuple[int, int], constants: Mapping[str, int] | None = None
) -> tirx.PrimFunc:
    """Make a PrimFunc of a shader with one entry point.

    Args:
        tensors: by the names of the shader's bindings, in the order of the PrimFunc's parameters: inputs, then outputs.
        workgroups: of a launch, along x and y.
        constants: values of the shader's `override` declarations.

    Raises:
        UserError: the shader has something that the door has no place for, or differs from `tensors` or `constants`.
    """
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", wgsl, flags=re.DOTALL)
    code = re.sub(r"\benable\s+f16\s*;", "", code)  # TVM writes it for a tensor in float16
    entries = _ENTRY.findall(code)
    if len(entries) != 1:
        raise UserError(
            "WGSL", f"{len(entries)} entry points", "one @compute function with @workgroup_size", "keep one"
        )
    ((size_text, name, parameters),) = entries
    subject = f"the WGSL of {name}"
    code = with_constants(subject, code, constants or {})
    values = {found[1]: found[2] for found in re.finditer(r"\bconst\s+(\w+)\s*(?::\s*\w+)?\s*=\s*([^;]+);", code)}
    bindings = [
        _Binding(found[2], found[1] == "read_write", LANES if found[3] else 1, TYPES.get(found[4], ("", 0))[0])
        for found in _BINDING.finditer(code)
    ]
    code = _BINDING.sub("", code)
    _check(subject, code, bindings, tensors)
    size = [_number(subject, part, values) for part in size_text.split(",") if part.strip()]
    size += [1] * (3 - len(size))
    memory = sum(
        int(lanes or 1) * TYPES[scalar][1] * _number(subject, count, values)
        for lanes, scalar, count in _MEMORY.findall(code)
    )
    plain = re.sub(r"@builtin\(\w+\)\s*", "", parameters)
    code = _ENTRY.sub(lambda _: f"fn shader_{name}({plain}) {{", code)
    for binding in bindings:
        code = re.sub(rf"\b{binding.name}\b", f"{binding.name}_ptr", code)
    x, y, z = size
    texts = {
        "grid": f"vec3<u32>({workgroups[0]}u, {workgroups[1]}u, 1u)",
        "size": f"vec3<u32>({x}u, {y}u, {z}u)",
    }
    arguments = []
    for builtin in re.findall(r"@builtin\((\w+)\)", parameters):
        if builtin not in _BUILTINS:
            raise UserError(subject, f"@builtin({builtin})", f"one of {', '.join(_BUILTINS)}", "compute it from these")
        arguments.append(_BUILTINS[builtin].format(**texts))
    text = f"shader_{name}({', '.join(arguments)});\n}}\n{code.strip()}\nfn declared() {{\n  _ = i32"
    source = _script(name, text, {b.name: b for b in bindings}, tensors, workgroups, size, memory)
    return mark_named(mark_finished(tvm.script.from_source(source, {"T": T}), name))


def with_constants(subject: str, code: str, constants: Mapping[str, int]) -> str:
    """Turn `override n : u32;` of WGSL into `const n : u32 = 7u;`.

    subject: whose constants they are, for the error.

    Raises UserError unless each declaration has a value and each value a declaration.
    """
    declared = re.findall(r"(?:@id\(\d+\)\s*)?\boverride\s+(\w+)", code)
    if sorted(declared) != sorted(constants):
        raise UserError(
            subject, f"override {', '.join(declared)}", ", ".join(constants), "pass a value for each override"
        )
    pattern = r"(?:@id\(\d+\)\s*)?\boverride\s+(\w+)\s*:\s*(u32|i32)\s*(?:=[^;]*)?;"
    return re.sub(pattern, lambda found: f"const {found[1]} : {found[2]} = {constants[found[1]]}{found[2][0]};", code)


def _check(subject: str, code: str, bindings: list[_Binding], tensors: Mapping[str, Tensor]) -> None:
    """Raise UserError unless the bindings are those of `tensors`, and nothing is left that TVM has no place for."""
    for word, remedy in (
        ("@binding", "use storage buffers of group 0: array<T> or array<vec4<T>>, T one of " + ", ".join(TYPES)),
        ("override", "declare it as u32 or i32"),
        ("enable", "only f16 can be enabled"),
        ("requires", "leave it out"),
        ("diagnostic", "leave it out"),
    ):
        if found := re.search(rf"[^;{{}}]*{word}\b[^;]*", code):
            raise UserError(subject, " ".join(found[0].split()), "a declaration that TVM can write", remedy)
    if {binding.name for binding in bindings} != set(tensors):
        got = ", ".join(binding.name for binding in bindings)
        raise UserError(subject, f"bindings {got}", ", ".join(tensors), "name the tensors as the shader does")
    for binding in bindings:
        tensor = tensors[binding.name]
        if tensor.dtype != binding.dtype or tensor.shape[-1] % binding.lanes:
            got = f"{binding.name} of {_WGSL_OF.get(binding.dtype, 'another type')} in groups of {binding.lanes}"
            raise UserError(
                subject, got, f"{list(tensor.shape)} {tensor.dtype}", "use another shader for this shape and dtype"
            )
        if len(binding.name) == 1 and binding.name in "xyzwrgba" and re.search(rf"\.{binding.name}\b", code):
            remedy = "rename the binding: it reads as a part of a vector"
            raise UserError(subject, f"binding {binding.name}", "a name of its own", remedy)


def _number(subject: str, text: str, values: Mapping[str, str]) -> int:
    """Compute a product of whole numbers and constants."""
    product = 1
    for factor in map(str.strip, text.strip().strip("()").split("*")):
        if re.fullmatch(r"\d+[ui]?", factor):
            product *= int(factor.rstrip("ui"))
        elif factor in values:
            product *= _number(subject, values[factor], values)
        else:
            raise UserError(subject, text.strip(), "a product of whole numbers and constants", "write the size as one")
    return product


def _script(
    name: str,
    text: str,
    bindings: Mapping[str, _Binding],
    tensors: Mapping[str, Tensor],
    workgroups: tuple[int, int],
    size: list[int],
    memory: int,
) -> str:
    """Write the PrimFunc in TVMScript: its parameters have the names of the bindings, to which TVM adds `_ptr`."""
    parameters = ", ".join(f'{n}: T.Buffer({t.shape}, "{t.dtype}")' for n, t in tensors.items())
    extents = [(f"blockIdx.{axis}", count) for axis, count in zip("xy", workgroups, strict=True)]
    extents += [(f"threadIdx.{axis}", count) for axis, count in zip("xyz", size, strict=True)]
    words = math.ceil(memory / 4)
    lines = [f"def {name}({parameters}):"]
    for depth, (tag, count) in enumerate(extents):
        lines.append(f'{"    " * (depth + 1)}for v{depth} in T.thread_binding({count}, thread="{tag}"):')
    body = ['with T.sblock("hand_written"):', "    T.reads()", "    T.writes()"]
    if memory:
        body.append(f'    held = T.sblock_alloc_buffer(({words},), "float32", scope="shared")')
    body.append(f'    T.evaluate(T.call_extern("int32", {text!r}, 0))')
    if memory:
        body.append(
            f"    held[{words - 1}] = T.float32(0)"
        )  # the last, and below the first: TVM shortens what is unused
    places = {}
    for one, binding in bindings.items():
        last = "0" if binding.lanes == 1 else f"T.ramp(0, 1, {LANES})"
        places[one] = f"{one}[{', '.join(['0'] * (len(tensors[one].shape) - 1) + [last])}]"
    numbers = ["held[0]"] if memory else []
    for one, binding in bindings.items():
        if not binding.is_written:
            numbers.append(places[one] if binding.lanes == 1 else f"T.Shuffle([{places[one]}], [0])")
    read = " + ".join(f'T.cast({number}, "float32")' for number in numbers) or "T.float32(0)"
    for one, binding in bindings.items():
        if binding.is_written:
            value = f'T.cast({read}, "{binding.dtype}")'
            body.append(f"    {places[one]} = {value if binding.lanes == 1 else f'T.Broadcast({value}, {LANES})'}")
    indent = "    " * (len(extents) + 1)
    script = "\n".join([*lines, *(indent + line for line in body)])
    return f"@T.prim_func(s_tir=True, private=True)\n{script}\n"
