"""Exercises of lesson 09: the hospital. Fifteen models that do not work, one for each pain that users report most.

The cases stand in `hospital_*.py`, by subject; what they share is in `hospital.py`.
"""

from __future__ import annotations

from .hospital_caller import CALLER
from .hospital_export import BRANCH, TRAINING
from .hospital_int8 import COLLAPSE, CRASH, SLOWER
from .hospital_loading import ELSEWHERE, STRANGER
from .hospital_loop import UNROLLED
from .hospital_shapes import FIXED_BATCH, UNKNOWN
from .hospital_speed import FALLBACK, TINY
from .hospital_versions import NEW_IR, NEW_OPSET

# In the order of the wards: easy finds, export and shapes, slow, wrong numbers.
TASKS = (
    *(NEW_IR, ELSEWHERE, NEW_OPSET, STRANGER),
    *(FIXED_BATCH, UNKNOWN, CALLER),
    *(TINY, FALLBACK, UNROLLED),
    *(TRAINING, BRANCH, CRASH, SLOWER, COLLAPSE),
)
