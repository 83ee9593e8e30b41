/**
 * The quantile function of the symmetric beta distribution that "beta" spacing uses (arXiv 2407.12173).
 *
 * Twin: mlc_controlnet/runtime/samplers/beta_quantile.py.
 */

const SHAPE = 0.6; // both parameters
const BETA = 2.4153442080024714; // Gamma(0.6)^2 / Gamma(1.2)
const TERMS = 60; // the series at x = 1/2 loses a bit a term
const ITERATIONS = 12;

/** Return the x in 0..1 below which the share `p` of the distribution lies. */
export function betaQuantile(p: number): number {
  if (p > 0.5) return 1 - betaQuantile(1 - p);
  if (p <= 0) return 0;
  let x = (p * SHAPE * BETA) ** (1 / SHAPE); // too large: the series' other terms are positive
  for (let i = 0; i < ITERATIONS; i++) {
    // Newton's method; the distribution is concave here, so it converges from below.
    const density = (x ** (SHAPE - 1) * (1 - x) ** (SHAPE - 1)) / BETA;
    x -= (distribution(x) - p) / density;
  }
  return x;
}

/** Return the share below x for x of about 1/2 or less, by the power series of the integrand's second factor. */
function distribution(x: number): number {
  let coefficient = 1;
  let total = 0;
  for (let n = 0; n < TERMS; n++) {
    total += (coefficient * x ** n) / (SHAPE + n);
    coefficient *= (n + 1 - SHAPE) / (n + 1);
  }
  return (x ** SHAPE * total) / BETA;
}
