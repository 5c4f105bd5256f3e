"""Execution of batches: runs, hanging runs, answers, errors and the circuit breaker."""
