"""Figures: data in, matplotlib ``Figure`` out. Nothing here shows or saves, and nothing here knows torch."""
