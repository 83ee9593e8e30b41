"""Phase replace: operators become kernels of ours, or part of their neighbours."""
