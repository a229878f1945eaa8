"""Decides which adapters are in host memory and in slots, and which request is served next."""
