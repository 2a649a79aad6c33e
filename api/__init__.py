"""The HTTP floor: requests in, answers out. It knows the domain, no statistics and no SQL."""
