"""Time whole pictures."""
