"""Single operations and components, timed against peers."""
