"""Which variant: choosing, the hash, the stored rows, lists, and the reasons."""
