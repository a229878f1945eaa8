"""Several adapters become one, with a report of what that costs. Pure functions on tensors, a table of methods."""
