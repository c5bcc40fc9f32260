"""The miniature world: scenes whose content can be read back from the pixels."""
