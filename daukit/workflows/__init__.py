"""The commands' work, for Python: each function takes a checkpoint and returns a frozen result."""
