"""General ability where there is no general data: a suite of questions, and rows sampled from the base."""
