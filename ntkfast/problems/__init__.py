"""Problems as data: a domain, conditions, an exact solution; one short file for each that is built in."""

from .box import Box as Box
from .box import Union as Union
from .condition import Condition as Condition
from .points import Points as Points
from .problem import Problem as Problem
from .problem import predict as predict
from .wave1d import MultiscaleWave1D as MultiscaleWave1D
from .wave1d import Wave1D as Wave1D
