"""HTTP requests in, tokens out. This package imports nothing, so that `server.client` stays light."""
