"""The miniature world: scenes and captions, the oracle that reads pictures, the annotators."""
