"""Finds the threads and the data type with which this machine serves this model fastest."""
