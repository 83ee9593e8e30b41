"""TIR kernels of our own: the operators whose default schedules are slow or hide memory from the plan."""

from mlc_controlnet.kernels.script_frames import use_in_parser

use_in_parser()
