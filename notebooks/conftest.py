"""nbval runs the lessons. The exercises' student versions have gaps on purpose: tests/test_exercises.py runs those."""

collect_ignore_glob = ["exercises/*", "work/*", "*.py"]
