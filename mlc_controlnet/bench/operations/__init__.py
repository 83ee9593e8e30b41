"""Time single operations and components against peers."""
