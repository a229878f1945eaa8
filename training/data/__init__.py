"""Training data: reading files into TRL's forms, curating and mixing them.

Every step reports the rows that it changed or dropped.
"""
