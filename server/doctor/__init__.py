"""`lora-compose doctor`: checks of the installation, the machine, a model, adapters, a registry and a server."""
