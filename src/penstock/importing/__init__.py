"""`penstock import`: models of other libraries as verified versions. Runs in a child process."""
