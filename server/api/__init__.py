"""The routes, one file for each resource, with their requests and responses. `openapi*` document all routes.

The work of a route is in the packages below. The middleware before every route is in `server.http` and
`server.tenants`.
"""
