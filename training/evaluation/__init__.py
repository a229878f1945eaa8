"""Evaluation: tasks, models that answer them, scores, and requirements on scores.

Models are evaluated in this process or at a running server. Speed is not measured here, but in `benchmarks`.
"""
