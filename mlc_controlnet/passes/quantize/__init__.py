"""After phase clean: weights become words of codes, which kernels decode as they read them."""
