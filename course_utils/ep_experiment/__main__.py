"""`python course_utils/ep_experiment`, in an interpreter that need not have the course."""

import sys
from pathlib import Path

# At the end: the modules beside this folder must not hide others of the same name.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from ep_experiment.record import main  # type: ignore[import-not-found]

if __name__ == "__main__":
    main()
