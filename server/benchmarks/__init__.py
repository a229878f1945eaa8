"""Benchmarks that are started over HTTP: the plan, and the child process that runs it."""
