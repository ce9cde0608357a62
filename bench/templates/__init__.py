"""Files that `new` copies: each works as it is."""
