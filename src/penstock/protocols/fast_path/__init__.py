"""The fast path: requests that are recognised by their bytes, without parsing them."""
