"""What the compilers of real GPUs make of our kernels, without those GPUs, and the times that follow: predictions."""
