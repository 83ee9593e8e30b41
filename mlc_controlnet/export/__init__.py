"""Write the files of a bundle besides its libraries: weights, samplers, latent previews and descriptions."""
