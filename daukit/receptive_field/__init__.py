"""Theoretical receptive fields: what the layers of any ``nn.Module`` can see, without gradients: docs/erf.md.

``tracing.py`` follows torch's dispatcher, ``axes.py`` is the arithmetic, ``windows.py`` and ``windowless.py`` are its
rules by operation, ``layout.py`` finds height and width in an output.
"""

from daukit.receptive_field.theory import TheoreticalField, theoretical_receptive_field

__all__ = ["TheoreticalField", "theoretical_receptive_field"]
