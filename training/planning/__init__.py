"""The memory planner: how much memory a training step needs, and which cards have enough.

It plans from a model's config alone and loads no model. `calibration.py` compares it with measured runs.
"""
