"""Routing: which loaded model and version answers a request."""
