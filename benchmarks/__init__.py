"""Workloads and measurements. Speaks HTTP to servers; only `benchmarks.gpu` looks inside the engine."""
