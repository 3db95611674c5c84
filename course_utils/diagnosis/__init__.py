"""The doctor: reads a model that nobody here made, and says what is wrong with it, where, and what to do.

It never runs the model unless asked, and then in a process of its own. Weights are never loaded: `skeleton` leaves them
out while reading, and `weights` looks at them piece by piece. Whether ONNX Runtime would load the model is asked without
them, and decides what is an error (`verdict`). What can be found is declared as a `Code` beside the check
that finds it; the checks stand in one module per subject, and `examination` runs them all.

The command line is `course_utils/doctor.py`. This package has another name, so that `cu.doctor` stays the function.
"""

from .examination import doctor
from .vocabulary import doctor_codes

__all__ = ["doctor", "doctor_codes"]
