"""One component resource per tier of the stack."""
