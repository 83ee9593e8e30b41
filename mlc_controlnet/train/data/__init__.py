"""Training sets: read, converted, cached and streamed."""
