"""Errors of model loading and inference.

::

    ModelError
    ├── ModelNotFound       the folder holds no exported model
    ├── ModelInvalid        it holds one, but not one that can be used as asked
    └── DeviceUnavailable   the device asked for is not there
"""


class ModelError(Exception):
    """Base of everything ``models.inference`` raises on purpose; the text says what to do."""


class ModelNotFound(ModelError):
    """The folder, its graph file or its parameter file does not exist."""


class ModelInvalid(ModelError):
    """The files do not make the model that was asked for: torn, foreign, or of another kind."""


class DeviceUnavailable(ModelError):
    """``device="gpu"`` without a CUDA build of Paddle or without a CUDA device."""
