"""A person's data: read into TRL's forms, curated, mixed.

Every step says what it touched; nothing is dropped in silence.
"""
