"""A result as page, charts and tables."""
