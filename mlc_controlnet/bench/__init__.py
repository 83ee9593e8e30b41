"""Benchmarks of whole pictures, of single operations and of training."""
