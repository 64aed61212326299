"""The CUDA kernels of ``cuda/``: float32 sums on NVIDIA GPUs, compiled on the machine that runs them."""
