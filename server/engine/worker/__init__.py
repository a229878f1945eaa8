"""The part of the engine inside vLLM's workers: builds, keeps, stacks and folds adapters."""
