"""What every layer shares: requests, errors, tensors, encodings. It knows no protocol and does no I/O."""
