"""What is known of customers: the ids that are one person, and the attributes that were reported of them."""
