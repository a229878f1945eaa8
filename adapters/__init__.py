"""What an adapter is and how adapters combine. It does not use vLLM, Starlette or HTTP."""
