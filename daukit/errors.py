"""The exceptions that daukit raises for the world outside.

A wrong argument is a ``ValueError`` or a ``TypeError``, as in torch. What a file, a disk, a data set or a GPU does
wrong is a ``DaukitError``, whose message names the file, the rule, the values and the next step.
"""


class DaukitError(Exception):
    """Base of every error that daukit raises about files, data, outputs and GPUs."""


class CheckpointError(DaukitError):
    """A checkpoint cannot be read, or its content is not what its header promises."""


class DataError(DaukitError):
    """A data set is missing, truncated or of the wrong kind."""


class OutputError(DaukitError):
    """An output file cannot be written, or it exists and was not to be overwritten."""


class CudaError(DaukitError):
    """A CUDA kernel could not be launched."""


class CudaUnavailableError(CudaError):
    """The CUDA kernels cannot be compiled here: a piece is missing, or the GPU is not one that they can run on."""
