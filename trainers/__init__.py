"""The shared trainer core of dpo-bench. It knows nothing of the harness in ``bench``."""
