"""The scripts, in order of their revisions."""
