import pytest
import tvm
from tvm.script import tirx as T
from tvm.script.parser.core import doc, evaluator
from tvm.script.parser.core.diagnostics import Source

from mlc_controlnet.kernels import script_expressions


def sums(count, shift=(3,)):
    @T.inline
    def add(buffer, i, x):
        buffer[i] = buffer[i] + x * 2.0

    @T.prim_func(s_tir=True, private=True)
    def sum_each(a: T.Buffer((count, 4), "float32"), b: T.Buffer((count,), "float32")):
        for i in T.serial(0, count - shift[0]):
            for lane in T.unroll(4):
                add(b, i + shift[0], T.max(a[i, lane], T.float32(-1)))
            if i % 2 == 0 and i > 1:
                b[i] = T.if_then_else(i < 5, -b[i], b[i] if count > 4 else b[0])

    return sum_each


@pytest.fixture
def tvms_own(monkeypatch):
    """TVM's own parser."""
    monkeypatch.setattr(evaluator, "_eval_expr", script_expressions._compile_and_run)
    monkeypatch.setattr(Source, "as_ast", lambda source: doc.parse(source.source))


def test_a_kernel_is_what_tvms_own_parser_makes_of_it(monkeypatch, request):
    ours = [sums(count).script(show_meta=True) for count in (8, 4)]
    spans = [str(sums(8).body.span), str(sums(8).body.span)]
    request.getfixturevalue("tvms_own")
    assert [sums(count).script(show_meta=True) for count in (8, 4)] == ours
    assert spans == [str(sums(8).body.span)] * 2


def test_values_are_looked_up_and_a_source_is_read_once(monkeypatch):
    sums(8)
    compiled, parses, compile_and_run = [], [], script_expressions._compile_and_run
    monkeypatch.setattr(
        script_expressions, "_compile_and_run", lambda *given: compiled.append(given) or compile_and_run(*given)
    )
    monkeypatch.setattr(doc, "parse", lambda *given: parses.append(given))
    tvm.ir.assert_structural_equal(sums(8), sums(8))
    assert compiled == parses == []


@pytest.mark.parametrize(
    "expression",
    ["f(1, *xs, key=2)", "f(1, **named)", "len(xs)", "[x + 1 for x in xs]", "xs[0:2]", "xs[1]", "f.__name__", "(1, y)"],
)
def test_every_expression_has_pythons_value(expression):
    def f(*given, **named):
        return given, named

    values = {"f": f, "xs": [1, 2, 3], "named": {"key": 3}, "y": 5}
    assert script_expressions.value_of(doc.parse(expression, mode="eval").body, dict(values)) == eval(
        expression, values
    )


def test_an_unknown_name_is_an_error_of_python():
    with pytest.raises(NameError, match="nowhere"):
        script_expressions.value_of(doc.parse("nowhere", mode="eval").body, {})
