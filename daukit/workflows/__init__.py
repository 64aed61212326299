"""What the commands do, for Python: each function takes a checkpoint and returns a frozen result."""
