"""The recipe that makes the shipped files of the miniature world from nothing."""
