"""Benchmarks started over HTTP: a plan, and a process beside the server that runs it."""
