"""The whole loop on a simulated shop whose truth is known."""
