"""Training sets: read, convert, cache and stream them."""
