"""The edge of the server: connections, request ids, bodies, logs, metrics of requests, traces. No routes."""
