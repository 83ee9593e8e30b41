"""A bundle: the folder that a build writes and every runtime reads.

`manifest` says what is in it, `writer` writes it whole or not at all, `reader` reads and verifies it, and
`sampler_table` is the form of its samplers.json.
"""
