"""TIR kernels of our own: the operators whose default schedules are slow or hide memory from the plan."""

from mlc_controlnet.kernels import script_expressions, script_frames

script_frames.use_in_parser()
script_expressions.use_in_parser()
