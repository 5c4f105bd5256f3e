"""Services that gRPC itself defines: health and reflection."""
