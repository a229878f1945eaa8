"""A composition as a value: names, weights and a method, from text or JSON. It uses no files or tensors."""
