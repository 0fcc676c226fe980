"""The targets that a text gives itself: at every position, the token that comes next."""
