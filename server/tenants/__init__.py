"""Keys, roles, quotas and the audit log: all of authentication and authorisation."""
