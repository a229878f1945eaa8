"""The embedded testbed: a small base, its adapters, their questions, and the scripts that make them.

`demo` and `quality` use it. Nothing here is needed to train or serve other models.
"""
