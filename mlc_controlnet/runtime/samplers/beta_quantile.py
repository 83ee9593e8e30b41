"""The quantile function of the symmetric beta distribution that "beta" spacing uses (arXiv 2407.12173).

Twin: web/src/engine/samplers/beta_quantile.ts.
"""

SHAPE = 0.6  # both parameters
_BETA = 2.4153442080024714  # Gamma(0.6)^2 / Gamma(1.2)
_TERMS = 60  # the series at x = 1/2 loses a bit a term
_ITERATIONS = 12


def beta_quantile(p: float) -> float:
    """Return the x in 0..1 below which the share `p` of the distribution lies."""
    if p > 0.5:
        return 1 - beta_quantile(1 - p)
    if p <= 0:
        return 0.0
    x = (p * SHAPE * _BETA) ** (1 / SHAPE)  # too large: the series' other terms are positive
    for _ in range(_ITERATIONS):  # Newton's method; the distribution is concave here, so it converges from below
        density = x ** (SHAPE - 1) * (1 - x) ** (SHAPE - 1) / _BETA
        x -= (_distribution(x) - p) / density
    return x


def _distribution(x: float) -> float:
    """Return the share below x for x of about 1/2 or less, by the power series of the integrand's second factor."""
    coefficient, total = 1.0, 0.0
    for n in range(_TERMS):
        total += coefficient * x**n / (SHAPE + n)
        coefficient *= (n + 1 - SHAPE) / (n + 1)
    return x**SHAPE * total / _BETA
