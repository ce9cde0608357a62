"""Other ways to do the same: the plain one, and other people's packages; timed and compared beside this project."""
