"""Guardrails: variants that do harm are paused in the segments where they do it, and come back when they are let."""
