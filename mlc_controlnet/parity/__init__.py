"""Compiled against torch."""
