/**
 * What a model's output says of the data and of the noise, as pairs of coefficients (of the sample, of the output).
 *
 * With the sample x = alpha * x0 + sigma * eps, a model predicts eps, x0, or v = alpha * eps - sigma * x0 (arXiv
 * 2202.00512, appendix D). Twin: mlc_controlnet/runtime/samplers/prediction.py.
 */

export type Pair = readonly [ofSample: number, ofOutput: number];

/** Return the coefficients of x0. */
export function dataPrediction(predictionType: string, alpha: number, sigma: number): Pair {
  if (predictionType === "epsilon") return [1 / alpha, -sigma / alpha];
  if (predictionType === "v_prediction") return [alpha, -sigma];
  return [0, 1];
}

/** Return the coefficients of eps. */
export function noisePrediction(predictionType: string, alpha: number, sigma: number): Pair {
  if (predictionType === "epsilon") return [0, 1];
  if (predictionType === "v_prediction") return [sigma, alpha];
  return [1 / sigma, -alpha / sigma];
}

/** Return the coefficients of x0 for a sample x = x0 + sigma * eps (arXiv 2206.00364, where x is not scaled). */
export function denoised(predictionType: string, sigma: number): Pair {
  if (predictionType === "epsilon") return [1, -sigma];
  if (predictionType === "v_prediction") return [1 / (sigma ** 2 + 1), -sigma / (sigma ** 2 + 1) ** 0.5];
  return [0, 1];
}

/** Return the coefficients of dx / dsigma = (x - x0) / sigma for such a sample. */
export function derivative(predictionType: string, sigma: number): Pair {
  if (predictionType === "epsilon") return [0, 1];
  if (predictionType === "v_prediction") {
    return [sigma / (sigma ** 2 + 1), 1 / (sigma ** 2 + 1) ** 0.5]; // 1 - 1 / (sigma^2 + 1) = sigma^2 / (sigma^2 + 1)
  }
  return [1 / sigma, -1 / sigma];
}

/** Return alpha and sigma of the sample whose variance is 1 and whose noise level is `sigma`. */
export function signalAndNoise(sigma: number): Pair {
  const alpha = 1 / (sigma ** 2 + 1) ** 0.5;
  return [alpha, sigma * alpha];
}

/** Return the weighted sum of pairs. */
export function weighted(...terms: readonly (readonly [weight: number, pair: Pair])[]): Pair {
  const sum = (which: 0 | 1) => terms.reduce((total, [weight, pair]) => total + weight * pair[which], 0);
  return [sum(0), sum(1)];
}
