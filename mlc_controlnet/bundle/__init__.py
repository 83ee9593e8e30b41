"""A bundle: the folder that a build writes and every runtime reads.

`manifest` describes its contents, `writer` writes it whole or not at all, `reader` reads and verifies it, and
`sampler_description` is the format of its samplers.json.
"""
