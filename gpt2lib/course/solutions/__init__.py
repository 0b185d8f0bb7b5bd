"""An answer to every exercise, as a learner could write it: a module a notebook.

`solution(id)` shows these before the library's source. The stubs in the notebooks have the same
signatures and docstrings, and a test holds every answer against its exercise.
"""
