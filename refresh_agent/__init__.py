"""Restarts services and coordinates data migration when a node's Heat configuration changes."""

__version__ = "0.1.0"
