"""What a model's output says of the data and of the noise, as pairs of coefficients (of the sample, of the output).

With the sample x = alpha * x0 + sigma * eps, a model predicts eps, x0, or v = alpha * eps - sigma * x0 (arXiv
2202.00512, appendix D). Twin: web/src/engine/samplers/prediction.ts.
"""

from typing import TypeAlias

Pair: TypeAlias = tuple[float, float]


def data_prediction(prediction_type: str, alpha: float, sigma: float) -> Pair:
    """Return the coefficients of x0."""
    if prediction_type == "epsilon":
        return 1 / alpha, -sigma / alpha
    if prediction_type == "v_prediction":
        return alpha, -sigma
    return 0.0, 1.0


def noise_prediction(prediction_type: str, alpha: float, sigma: float) -> Pair:
    """Return the coefficients of eps."""
    if prediction_type == "epsilon":
        return 0.0, 1.0
    if prediction_type == "v_prediction":
        return sigma, alpha
    return 1 / sigma, -alpha / sigma


def denoised(prediction_type: str, sigma: float) -> Pair:
    """Return the coefficients of x0 for a sample x = x0 + sigma * eps (arXiv 2206.00364, where x is not scaled)."""
    if prediction_type == "epsilon":
        return 1.0, -sigma
    if prediction_type == "v_prediction":
        return 1 / (sigma**2 + 1), -sigma / (sigma**2 + 1) ** 0.5
    return 0.0, 1.0


def derivative(prediction_type: str, sigma: float) -> Pair:
    """Return the coefficients of dx / dsigma = (x - x0) / sigma for such a sample."""
    if prediction_type == "epsilon":
        return 0.0, 1.0
    if prediction_type == "v_prediction":  # 1 - 1 / (sigma^2 + 1) = sigma^2 / (sigma^2 + 1)
        return sigma / (sigma**2 + 1), 1 / (sigma**2 + 1) ** 0.5
    return 1 / sigma, -1 / sigma


def signal_and_noise(sigma: float) -> Pair:
    """Return alpha and sigma of the sample whose variance is 1 and whose noise level is `sigma`."""
    alpha = 1 / (sigma**2 + 1) ** 0.5
    return alpha, sigma * alpha


def weighted(*terms: tuple[float, Pair]) -> Pair:
    """Return the weighted sum of pairs."""
    return sum(w * pair[0] for w, pair in terms), sum(w * pair[1] for w, pair in terms)
