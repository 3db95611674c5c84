"""Exercises of lesson 09: the hospital. Sixteen models that do not work, one for each pain that users report most.

The cases stand in the other modules, by subject; what they share is in `hospital.py`.
"""

from __future__ import annotations

from .caller import CALLER
from .diverging import DIVERGING
from .export import BRANCH, TRAINING
from .int8 import COLLAPSE, CRASH, SLOWER
from .loading import ELSEWHERE, STRANGER
from .loop import UNROLLED
from .shapes import FIXED_BATCH, UNKNOWN
from .speed import FALLBACK, TINY
from .versions import NEW_IR, NEW_OPSET

# In the order of the wards: easy finds, export and shapes, slow, wrong numbers.
TASKS = (
    *(NEW_IR, ELSEWHERE, NEW_OPSET, STRANGER),
    *(FIXED_BATCH, UNKNOWN, CALLER),
    *(TINY, FALLBACK, UNROLLED),
    *(TRAINING, BRANCH, DIVERGING, CRASH, SLOWER, COLLAPSE),
)
