"""`lora-compose bench`: every way to serve adapters, measured under load."""
