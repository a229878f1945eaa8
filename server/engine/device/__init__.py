"""LoRA kernels of our own for devices that Triton compiles for, inside vLLM's workers."""
