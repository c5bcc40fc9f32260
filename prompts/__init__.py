"""Prompt sets as data: a jsonl of ids and prompts, and a card that says where they come from."""
