"""plan: how many units an experiment needs, how long that takes, and what it can see."""
