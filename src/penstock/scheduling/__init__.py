"""Queueing and batching: which requests run together, when, and on which thread."""
