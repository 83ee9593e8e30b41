"""Samplers: the rows of numbers that turn model outputs into a picture's latents, for any number of steps.

`schedule.build_schedule` computes them from a bundle's description, `row.advance` executes them, and the other modules
hold the formulas, one family a file. Twin: web/src/engine/samplers/.
"""
