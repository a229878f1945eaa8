"""What a model knows, has lost and prefers. Reads tasks from files and knows no testbed."""
