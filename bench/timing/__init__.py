"""How fast the project is: against the plain way, other packages and the machine's limits; and how cost grows."""
