"""Evaluation data for the personal-data step that the detectors were not written with.

`carriers.py` has the sentences, `items.py` makes the values from a seed, and `measured.py` prints the
precision and recall of each kind and language. Change a detector with `personal_texts.py` at hand, and not
with these.
"""
