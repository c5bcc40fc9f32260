"""The miniatures of the reward models, trained from nothing much as their models were.

An image tower learns to name and rate pictures; with a text tower it becomes CLIP, on captioned
pictures. PickScore and HPSv2 are that CLIP, fine-tuned on choices and on rankings; the aesthetic
predictor is its image tower and a head, fitted to ratings; ImageReward is a BLIP that matches
captions first and then learns from rankings. None sees the oracle's scores: only captions, choices
and ratings of simulated annotators, who err.
"""
