"""Annotators of the service: the package's own, and networks that the operator names.

`named` reads what the operator wrote, `network` loads a file, `outputs` makes control images of what it returns.
"""
