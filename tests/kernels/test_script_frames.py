import inspect
import sys

import pytest
import tvm
from tvm.script import tirx as T

from mlc_controlnet.kernels import script_frames


def double_all(count):
    @T.inline
    def double(buffer, i):
        buffer[i] = buffer[i] * 2.0

    @T.prim_func(s_tir=True, private=True)
    def double_each(a: T.Buffer((count,), "float32")):
        for i in range(count):
            double(a, i)

    return double_each


def test_the_frames_are_those_of_inspect():
    ours, theirs = (function(sys._getframe()) for function in (script_frames.stack_of, inspect.getouterframes))
    assert [one.frame for one in ours] == [one.frame for one in theirs]
    assert [one[2:4] for one in ours[1:]] == [one[2:4] for one in theirs[1:]]
    assert ours[1].code_context == theirs[1].code_context


def test_a_kernel_is_parsed_without_a_search_for_modules_of_frames(monkeypatch):
    expected = double_all(8)
    searched, search = [], inspect.getouterframes
    monkeypatch.setattr(inspect, "getouterframes", lambda *given: searched.append(given) or search(*given))
    tvm.ir.assert_structural_equal(double_all(8), expected)
    assert searched == []


@pytest.mark.parametrize("module", script_frames._CALLERS)
def test_tvm_still_asks_inspect_for_all_else(module):
    assert module.inspect.isfunction is inspect.isfunction
