"""TIR kernels of our own: the operators whose default schedules are slow or hide memory from the plan."""
