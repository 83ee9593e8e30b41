"""Lets TVM's parser of scripts read a source once, and look at values instead of compiling code that names them.

TVM 0.27 evaluates an expression operand by operand and gives each result a name. For the next operation it builds a
Python syntax tree that holds nothing but such names, compiles and runs it. It also parses a kernel's source, and that
of each inline function in it, each time that one is made. Both are more than half of a kernel's construction.
"""

import functools
import operator
import types
from typing import Any

from tvm.script.parser.core import doc, evaluator
from tvm.script.parser.core.diagnostics import Source

_compile_and_run = evaluator._eval_expr


@functools.lru_cache(maxsize=512)  # several times as many as the package has
def parsed(source: str) -> doc.AST:
    """Return what `Source.as_ast` does. The parser does not change it, but for the step 1 that it gives to slices."""
    return doc.parse(source)


def value_of(node: doc.AST, values: dict[str, Any] | None) -> Any:
    """Return what `evaluator._eval_expr` does. Names, constants and operations with them are not compiled anew."""
    try:
        return _look_up(node, {} if values is None else values)
    except _NeedsPython:
        return _compile_and_run(node, values)


class _NeedsPython(Exception):
    """A name that is not among the values, or syntax that is left to Python."""


def _look_up(node: doc.AST, values: dict[str, Any]) -> Any:
    if isinstance(node, doc.Call):
        # In a frame with these globals, because inline functions look for one.
        return types.FunctionType(_code(_text_of(node)), values)()
    if isinstance(node, doc.Attribute):
        return getattr(_operand(node.value, values), node.attr)
    if isinstance(node, doc.Subscript):
        return operator.getitem(_operand(node.value, values), _operand(node.slice, values))
    if isinstance(node, doc.Tuple):
        return tuple(_operand(part, values) for part in node.elts)
    return _operand(node, values)


def _operand(node: doc.AST, values: dict[str, Any]) -> Any:
    if isinstance(node, doc.Name) and node.id in values:
        return values[node.id]
    if isinstance(node, doc.Constant):
        return node.value
    raise _NeedsPython


def _text_of(call: doc.Call) -> str:
    """Return the call's source. It is short, and most calls have that of another: names are counted from 0."""
    if not isinstance(call.func, doc.Name):
        raise _NeedsPython
    arguments = [_word_of(argument) for argument in call.args]
    arguments += [f"{keyword.arg}={_word_of(keyword.value)}" for keyword in call.keywords if keyword.arg is not None]
    if len(arguments) < len(call.args) + len(call.keywords):
        raise _NeedsPython
    return f"{call.func.id}({', '.join(arguments)})"


def _word_of(node: doc.AST) -> str:
    if isinstance(node, doc.Name):
        return node.id
    if isinstance(node, doc.Constant) and isinstance(node.value, int | str | None):
        return repr(node.value)
    raise _NeedsPython


@functools.lru_cache(maxsize=1 << 14)
def _code(text: str) -> types.CodeType:
    return compile(text, "<ast>", "eval")


def use_in_parser() -> None:
    """Give TVM's parser both."""
    evaluator._eval_expr = value_of
    Source.as_ast = lambda source: parsed(source.source)
