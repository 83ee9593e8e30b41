"""Phase clean: what torch says twice is said once; the same for every target."""
