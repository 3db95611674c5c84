"""The mass grader: a folder of zips that `cu.submit()` wrote goes in, a table of marks comes out.

It runs no code of a student. `python -m course_utils.grading grade --help` says how it is called.
"""
