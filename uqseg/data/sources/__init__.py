"""Data sources, one file each: a function `read`, mostly a function `stamp`, and what is declared of them."""
