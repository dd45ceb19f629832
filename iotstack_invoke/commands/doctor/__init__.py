"""`doctor` and `hosts`: problems, and what fixes them."""
