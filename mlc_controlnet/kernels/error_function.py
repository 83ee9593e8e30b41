"""The error function as plain arithmetic.

TVM takes a loop that has `tirx.erf` in it apart when it makes vectors, and with it every array that the loop touches:
the accumulators of a gated product became 64 scalars, of which each multiply-add of four computed one.
"""

from tvm import tirx

# erf(x) = x P(x^2) / Q(x^2) for |x| <= 4, where it is 1 to float32: the coefficients of Eigen's generic_erf, which
# TVM's own `topi.fast_erf` has as well. The highest power comes first.
NUMERATOR = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
DENOMINATOR = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
LARGEST = 4.0


def erf(x: tirx.Expr) -> tirx.Expr:
    """Compute the error function of a float32 number, with an error below 5e-7."""
    clipped, square = tirx.Var("clipped", "float32"), tirx.Var("square", "float32")
    ratio = clipped * _polynomial(square, NUMERATOR) / _polynomial(square, DENOMINATOR)
    within = tirx.max(tirx.min(x, tirx.const(LARGEST, "float32")), tirx.const(-LARGEST, "float32"))
    return tirx.Let(clipped, within, tirx.Let(square, clipped * clipped, ratio))


def _polynomial(x: tirx.Expr, coefficients: tuple[float, ...]) -> tirx.Expr:
    """Evaluate a polynomial by Horner's rule."""
    result = tirx.const(coefficients[0], "float32")
    for coefficient in coefficients[1:]:
        result = result * x + tirx.const(coefficient, "float32")
    return result
