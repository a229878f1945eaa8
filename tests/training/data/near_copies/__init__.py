"""Rows in code and five languages with known near copies, and with rows that only look alike."""
