"""Shared by all tests."""

import torch

# Tests work on tiny tensors: one thread is faster than two that wait for each other, and leaves a busy machine usable.
torch.set_num_threads(1)
