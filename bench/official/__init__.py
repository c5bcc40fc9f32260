"""The published packages of HPSv2 and ImageReward, in an environment of their own."""
