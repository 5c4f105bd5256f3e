"""The front doors: thin translations between protobuf and the core. Neither knows about batching."""
