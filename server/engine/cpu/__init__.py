"""LoRA kernels for CPUs, inside vLLM's workers: packed factors, the plan of a layer, the compiled kernel."""
