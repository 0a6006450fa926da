"""Training: the step, the trainer, its history, checkpoints and callbacks."""

from .callbacks import Callback as Callback
from .callbacks import Checkpoints as Checkpoints
from .callbacks import Progress as Progress
from .checkpoint import writable_folder as writable_folder
from .history import History as History
from .history import Series as Series
from .optimizers import adam as adam
from .optimizers import exponential_decay as exponential_decay
from .trainer import Trainer as Trainer
