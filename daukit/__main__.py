"""The command line as ``python -m daukit``, which is how ``torchrun -m`` starts a program."""

from __future__ import annotations

from daukit.cli.main import main

if __name__ == "__main__":
    main()
