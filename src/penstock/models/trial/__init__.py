"""The trial of a model in a child process, and what is learned there and kept for the next start."""
