"""IRModule -> IRModule, one pass a file; `pipeline.py` is the ordered list."""
