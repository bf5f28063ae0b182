"""Why a model cannot be profiled or loaded: sentences for a person, never a traceback.

ModelError
├── CheckpointError          the folder or its files: not there, damaged, incomplete, outside
├── UnsupportedModelError    a good checkpoint of a model that this version does not serve
└── StageError               the stage asked for: layers, device or dtype that cannot be
"""


class ModelError(Exception):
    """Base of all errors of this package; the message is one sentence."""


class CheckpointError(ModelError):
    """The checkpoint cannot be read as a model."""


class UnsupportedModelError(ModelError):
    """The model is not one that can be cut into stages here."""


class StageError(ModelError):
    """What was asked of the stage does not fit the model, the device or the cache."""
