"""The only package that imports vLLM: the engine, the plugin inside vLLM's processes, CPU LoRA kernels."""
