"""What is folded into the base weights, and the policy that decides it. `policy` and `token_prices` are pure."""
