"""Write the files of a bundle besides its libraries: weights, sampler tables, latent previews and descriptions."""
