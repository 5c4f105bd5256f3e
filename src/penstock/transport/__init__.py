"""The transports: they accept calls from the network and pass them to the protocols."""
