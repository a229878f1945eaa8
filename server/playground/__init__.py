"""The page at `GET /`, on which a person tries compositions in a browser.

Its files are in `static/`. Nothing is built and nothing is loaded from another server. It uses the HTTP API
like any other client, with the key that the person types.
"""
