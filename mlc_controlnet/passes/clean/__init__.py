"""Phase clean: remove what torch's export repeats; the same for every target."""
