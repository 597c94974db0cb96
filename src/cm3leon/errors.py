"""Every error this package raises on purpose.

Cm3leonError
├── ConfigError       a setting is unknown, missing or out of range
├── DataError         a file or record is not what its format says
│   └── ShardCorrupt  a checksum or a length does not match
├── CheckpointError   weights do not fit the model asked for
├── TrainingError     a training cannot go on: a number or a process is lost
└── RequestError      a caller asked for what this model cannot do
"""


class Cm3leonError(Exception):
    """Catch this to catch everything raised on purpose."""


class ConfigError(Cm3leonError):
    """A setting is unknown, missing or out of range."""


class DataError(Cm3leonError):
    """A file or record is not what its format says."""


class ShardCorrupt(DataError):
    """A shard's checksum or length does not match its index."""


class CheckpointError(Cm3leonError):
    """Weights do not fit the model asked for."""


class TrainingError(Cm3leonError):
    """A training cannot go on: a number or a process is lost."""


class RequestError(Cm3leonError):
    """A caller asked for what this model cannot do."""
