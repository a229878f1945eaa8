"""The memory that a training needs, computed from a config, and measured runs to check it."""
