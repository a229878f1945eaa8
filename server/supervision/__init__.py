"""Restarts a dead engine and restores its state. HTTP stays up during the restart."""
