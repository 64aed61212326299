"""Folders as tests look at them."""


def names(folder):
    """Sorted names of all that is in a folder."""
    return sorted(path.name for path in folder.iterdir())
