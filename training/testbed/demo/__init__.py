"""`make demo`: serves the embedded base and shows registering, stacking, merging and comparing."""
