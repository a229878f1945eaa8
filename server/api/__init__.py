"""One file for each resource: its routes, and what it reads and answers. `openapi*` describe them all.

What a route does is in the packages below; what stands before every route is in `server.http` and `server.tenants`.
"""
