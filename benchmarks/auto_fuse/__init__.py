"""Simulates the auto-fuse policy on made-up traffic and compares it with hindsight."""
