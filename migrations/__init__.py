"""The schema's history, applied by ``optimizer migrate`` (and by ``optimizer serve`` on an empty database)."""
