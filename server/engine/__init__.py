"""The only room that imports vLLM: launch, the plugin inside vLLM's processes, CPU LoRA kernels."""
