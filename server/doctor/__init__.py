"""`lora-compose doctor`: checks the installation, machine, model, adapters, registry and server."""
