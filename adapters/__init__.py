"""What an adapter is and how adapters combine. No vLLM, no Starlette and no HTTP in here."""
