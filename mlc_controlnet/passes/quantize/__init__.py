"""After phase clean: weights become words of codes, or stay float16; kernels decode or widen them as they read them."""
