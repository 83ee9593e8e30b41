"""Pictures: read from a file, turned upright, fitted to a size, made into an array. Training and drawing share this."""
