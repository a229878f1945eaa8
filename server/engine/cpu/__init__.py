"""LoRA kernels for CPUs, inside vLLM's workers: layer plans, packed factors, the compiled kernel."""
