"""Send plans: a share of a send tests the variants, the rest waits and gets the winner."""
