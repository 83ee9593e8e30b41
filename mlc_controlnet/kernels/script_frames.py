"""Lets TVM's parser of scripts see the frames of the stack without a search for their sources.

For each PrimFunc, and for each call of an inline function in one, TVM 0.27 calls `inspect.stack` and reads the frames.
`inspect` also looks for each frame's module. Frames of expressions that the parser evaluates belong to none, so that
every imported module is asked for its file: with torch and transformers loaded, five sixths of a kernel's construction.
"""

import inspect
import linecache
import sys
import types
from typing import Any

import tvm.script.parser.core.parser
import tvm.tirx.script.parser.entry

_CALLERS = (tvm.script.parser.core.parser, tvm.tirx.script.parser.entry)


def stack_of(frame: types.FrameType | None) -> list[inspect.FrameInfo]:
    """Return what `inspect.getouterframes` does, the frame first. A line comes from the file that the code names."""
    frames = []
    while frame is not None:
        code = frame.f_code
        line = linecache.getline(code.co_filename, frame.f_lineno, frame.f_globals)
        context, index = ([line], 0) if line else (None, None)
        frames.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, context, index))
        frame = frame.f_back
    return frames


class _Inspect:
    """The module `inspect`, with a quicker stack."""

    def __getattr__(self, name: str) -> Any:
        return getattr(inspect, name)

    @staticmethod
    def getouterframes(frame: types.FrameType) -> list[inspect.FrameInfo]:
        return stack_of(frame)

    @staticmethod
    def stack() -> list[inspect.FrameInfo]:
        return stack_of(sys._getframe(1))


def use_in_parser() -> None:
    """Give TVM's parser the quicker stack."""
    for module in _CALLERS:
        module.inspect = _Inspect()
