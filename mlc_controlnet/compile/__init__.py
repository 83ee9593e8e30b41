"""Compile a captured IRModule to libraries, and report their figures."""
