"""LoRA kernels for CPUs, inside vLLM's workers: a batch's plan for a layer, packed factors, the compiled kernel."""
