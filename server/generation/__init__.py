"""The generating routes in front of vLLM's app, and the accounting of what they use."""
