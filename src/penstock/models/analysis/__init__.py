"""What the graph of a model says about its rows, read from the file without running it."""
