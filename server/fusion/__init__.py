"""What is folded into the base weights, and the policy for it. `policy` and `token_prices` are pure."""
