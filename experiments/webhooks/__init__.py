"""Webhooks out: others are told what happened here, signed as Standard Webhooks are, from a durable outbox."""
