"""Measures the pipeline as a service over HTTP."""
