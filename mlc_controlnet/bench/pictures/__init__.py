"""Whole pictures, timed."""
