"""Results as one page of HTML that stands alone: no network, readable without a script."""
