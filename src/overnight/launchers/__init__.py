"""How a trainer is started, found again and ended."""
