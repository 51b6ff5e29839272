"""`score()`: verdicts on any number of images, in units that survive being killed, on one machine or many."""
