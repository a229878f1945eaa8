"""Runs vLLM's own benchmark and ours on the same cells and compares their figures."""
