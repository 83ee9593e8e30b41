"""What a build writes beside libraries: weights, sampler tables, previews, descriptions."""
