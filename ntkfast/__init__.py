"""Exact neural tangent kernels of real networks, fast, and a PINN trainer whose NTK-adaptive loss weights are free."""

import importlib.util

import torch  # noqa: F401  first: the extension links to the libtorch that this loads

if importlib.util.find_spec(f"{__name__}._C") is None:
    raise ImportError(
        f"expected the compiled part of ntkfast in {__path__[0]}, got its sources alone: in a checkout Python finds "
        "them before the installed package. Run it elsewhere, or build in place: python setup.py build_ext --inplace"
    )

from . import _C, reference
from .check import check
from .diag import diag
from .drift import kernel_drift, parameter_drift
from .factors import Factors, factors
from .gram import gram
from .loss_gradient import LossGradient, loss_gradient
from .networks import MLP, Erf, Sin, Standardize
from .operator import NTKOperator
from .plan import plan
from .residual import Residual, residual, value
from .snapshot import Workspace
from .spectrum import condition_number, effective_rank, mode_decay, spectrum
from .trace import trace
from .weights import NTKWeights

from . import problems  # isort: skip
from .problems import Box, Condition, Points, Problem  # isort: skip
from .training import History, Trainer  # isort: skip

__version__: str = _C.version
cuda_built: bool = _C.cuda_built  # whether this build runs on CUDA devices
__all__ = [
    "MLP",
    "Box",
    "Condition",
    "Erf",
    "Factors",
    "History",
    "LossGradient",
    "NTKOperator",
    "NTKWeights",
    "Points",
    "Problem",
    "Residual",
    "Sin",
    "Standardize",
    "Trainer",
    "Workspace",
    "check",
    "condition_number",
    "cuda_built",
    "diag",
    "effective_rank",
    "factors",
    "gram",
    "kernel_drift",
    "loss_gradient",
    "mode_decay",
    "parameter_drift",
    "plan",
    "problems",
    "reference",
    "residual",
    "spectrum",
    "trace",
    "value",
]
