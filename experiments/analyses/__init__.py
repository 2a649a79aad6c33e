"""Heavy analyses: rows that are queued, claimed, run in a process of their own, stored and read again."""
