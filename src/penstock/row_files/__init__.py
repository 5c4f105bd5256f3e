"""Files of rows, in CSV and JSON Lines: how they are read, and how their values become a model's inputs."""
