"""What a build writes besides libraries: weights, sampler tables, latent previews and descriptions."""
