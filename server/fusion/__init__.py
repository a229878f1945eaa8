"""Fuses compositions into the base weights, and decides when. `policy` and `token_prices` are pure."""
