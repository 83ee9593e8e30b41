"""Training steps, timed against diffusers' example."""
