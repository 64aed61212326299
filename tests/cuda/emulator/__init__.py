"""CUDA kernels on the CPU: builds them with g++, launches them, reports what they touch."""
