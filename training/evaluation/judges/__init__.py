"""Judges: each compares an answer of a model with the right answer of a question, and gives a score."""
