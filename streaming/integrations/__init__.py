"""lipstream inside other people's frameworks; each module needs its framework installed."""
