"""`lora-compose doctor`: checks of the installation, machine, model, adapters, registry and server."""
