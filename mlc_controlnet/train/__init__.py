"""Training, on torch and diffusers alone: this package never imports tvm."""
