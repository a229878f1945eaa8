"""One question each: hot load, residency, fusion, kernels."""
