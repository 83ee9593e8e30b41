"""`--calibrate`: what layers read while a model draws the user's prompts, and what its weights of few bits gain by it.

torch draws, in float32, before anything is compiled.
"""
