"""HTTP without routes: connections, request ids, bodies, log lines, request metrics and traces."""
